"""Lines of a module's own code that a message can point at."""

import linecache
import re
import sys
import traceback
from pathlib import Path
from typing import Any

# What their code does is not for users to change.
_LIBRARIES = frozenset({"functorch", "hybridc", "torch"})
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]+\n\s*(?P<code>[^\n]+)')
_LONGEST = 60


def data_dependent(exported: Any) -> str | None:
    """The first operator the shape of whose result depends on the data, and where it is called."""
    for node in exported.graph.nodes:
        if node.op == "call_function" and _open_sizes(node.meta.get("val")):
            if any(_open_sizes(each.meta.get("val")) for each in node.all_input_nodes):
                continue
            return f"operator {str(node.target)!r}{_called(node.meta.get('stack_trace') or '')}"
    return None


def _open_sizes(value: Any) -> bool:
    """Whether a value of torch has sizes that nobody knows before the call."""
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    values = value if isinstance(value, tuple | list) else (value,)
    return any(bool(free_unbacked_symbols(x.shape)) for x in values if hasattr(x, "shape"))


def _called(trace: str) -> str:
    frames = list(_FRAME.finditer(trace))
    if not frames:
        return ""
    last = frames[-1]
    return f" ({_line(last['file'], int(last['line']), last['code'])})"


def last_line(error: BaseException) -> str:
    """The innermost line of the user's code that an error passed through; empty without one."""
    found = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        file = frame.f_code.co_filename
        code = linecache.getline(file, number)
        if code and package not in _LIBRARIES | sys.stdlib_module_names:
            found = _line(file, number, code)
    return found


def _line(file: str, number: int, code: str) -> str:
    code = code.strip()
    return f"{Path(file).name}:{number}, {code[:_LONGEST]}{'…' if len(code) > _LONGEST else ''}"
