"""Read a `.pt2` file without running anything that the file brings.

A `.pt2` is a ZIP archive: weights as raw bytes described in JSON, the program as JSON, the sample
inputs as a pickle, and sometimes native code.  `torch.export.load` unpickles more than tensors
where it is led to: weights and constants marked `use_pickle`, custom objects, and sample inputs
that `weights_only` refuses.  It evaluates symbolic sizes with sympy, imports modules that a tree
specification names, and writes the program's names into Python source that it then executes.

So every member is looked at first, with torch's own reader, and an archive is refused unless its
tensors are raw bytes, its sample inputs load under `weights_only=True`, its sizes are integers,
its operators are ATen's, and its names are plain.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridc.compiler.errors import ModelError, first_line

_PLAIN = re.compile(r"[\w.\-]*")
_TARGET = re.compile(r"torch\.ops\.(aten|higher_order)\.\w+(\.\w+)?|_operator\.getitem")
# Operators that reach beyond tensors.
_FORBIDDEN = re.compile(r"torch\.ops\.aten\.(from_file|_?print|save|_save)\b.*")
_MEMBERS = re.compile(
    r"data/(weights|constants)/(weight|tensor)_\d+"
    r"|data/(weights|constants)/model_(weights|constants)_config\.json"
    r"|data/sample_inputs/model\.pt|models/model\.json"
    r"|archive_format|archive_version|byteorder|version|\.data/\w+|extra/.*"
)
_TREE_TYPES = {None, "builtins.list", "builtins.tuple", "builtins.dict", "collections.OrderedDict"}
# Text that is data: torch shows it or compares it, but never runs it.
_FREE_TEXT = {"metadata", "as_string", "torch_version"}


def read(path: Path) -> Any:
    """Load the `torch.export.ExportedProgram` of a file.

    Raises ModelError for a file that is damaged, or that only unpickling could load.
    """
    from torch.export.pt2_archive._package import PT2ArchiveReader, load_pt2

    # The same bytes are checked and loaded, whatever happens to the file in between.
    content = path.read_bytes()
    try:
        _check(path, PT2ArchiveReader(io.BytesIO(content)))
        # Not `torch.export.load`: where this fails, that goes on to read an older, pickled format.
        return load_pt2(io.BytesIO(content)).exported_programs["model"]
    except ModelError:
        raise
    except Exception as error:  # torch raises whatever its parsers met
        reason = first_line(error, repr(error)).partition(". ")[0][:200]
        raise ModelError(f"{path}: not a usable .pt2 file: {reason}") from None


def _check(path: Path, reader: Any) -> None:
    names = reader.get_file_names()
    for name in names:
        if _MEMBERS.fullmatch(name) is None:
            raise ModelError(f"{path}: refused, as {name!r} would be unpickled or run as code")
    for kind in ("weights", "constants"):
        _check_tensors(
            path, json.loads(reader.read_string(f"data/{kind}/model_{kind}_config.json"))
        )
    _check_sample_inputs(path, reader.read_bytes("data/sample_inputs/model.pt"))
    _check_program(path, json.loads(reader.read_string("models/model.json")))


def _check_tensors(path: Path, config: dict[str, Any]) -> None:
    for name, entry in config["config"].items():
        if entry["use_pickle"] or re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]) is None:
            raise ModelError(f"{path}: refused, as {name!r} would be unpickled")
        _require_plain(path, name)
        _check_sizes(path, entry)


def _check_sample_inputs(path: Path, content: bytes) -> None:
    import torch

    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:
        raise ModelError(f"{path}: refused, as its sample inputs are more than tensors") from None


def _check_program(path: Path, program: dict[str, Any]) -> None:
    if program.get("guards_code"):
        raise ModelError(f"{path}: refused, as it holds guards written in Python")
    for call in program["graph_module"]["module_call_graph"]:
        signature = call.get("signature") or {}
        for key in ("in_spec", "out_spec"):
            _check_tree(path, signature.pop(key, ""))
    _check_sizes(path, program)
    for key, text in _strings(program):
        if key == "target" and text.startswith(("torch.", "_operator.", "math", "#")):
            if _TARGET.fullmatch(text) is None or _FORBIDDEN.fullmatch(text):
                raise ModelError(f"{path}: operator {text!r} is not supported")
        else:
            _require_plain(path, text)


def _check_tree(path: Path, text: str) -> None:
    """Tree specifications are JSON within JSON; only plain containers are let through."""
    pending = json.loads(text)[1:] if text else []
    while pending:
        node = pending.pop()
        if node["type"] not in _TREE_TYPES or "__enum__" in str(node["context"]):
            raise ModelError(
                f"{path}: arguments or results of type {node['type']} are not supported"
            )
        pending.extend(node["children_spec"])


def _check_sizes(path: Path, data: Any) -> None:
    if any(key == "expr_str" for key, _ in _strings(data)):
        raise ModelError(
            f"{path}: it has dynamic sizes; load it with torch.export.load and"
            " give the ExportedProgram, or export it with static shapes"
        )


def _require_plain(path: Path, text: str) -> None:
    if _PLAIN.fullmatch(text) is None:
        raise ModelError(f"{path}: refused, as {text[:60]!r} is not a plain name")


def _strings(data: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Each string of JSON data that torch may act on, with the key that it stands at."""
    if isinstance(data, str):
        yield key, data
    elif isinstance(data, list):
        for item in data:
            yield from _strings(item, key)
    elif isinstance(data, dict):
        for name, item in data.items():
            yield "", name
            if name not in _FREE_TEXT:
                yield from _strings(item, name)
