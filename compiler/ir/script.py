"""Relax modules as TVMScript text: read, rewrite by a pipeline, check, print.

IR text is code: TVM's parser evaluates the Python expressions in it, with everything that Python
can do.  Read only text that you trust.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from hybridc.compiler import pipeline, target
from hybridc.compiler.errors import InputError, WrongAnswerError
from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.interfaces import Context, IRModule
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.model import TensorSpec, random_feed

# TVM's parser refuses imports; what these would name, it knows without them.
_IMPORT = re.compile(
    r"^from tvm\.script(?:\.parser)? import \w+ as [IRT](?:, \w+ as [IRT])*[ \t]*$", re.M
)
_ALLOCATION = re.compile(r"( = R\.(?:builtin|memory|vm)\.alloc_\w+\(.*), ty_args=\(.*\)\)$", re.M)


def read(text: str, name: str) -> IRModule:
    """Parse a module; `name` is the file's, for the error.

    Lines that import `I`, `R` and `T` from `tvm.script`, as a Python module needs them, may stand
    above it.

    Raises InputError with the parser's first line and position where the text is no module.
    """
    import tvm

    if "@" not in text:  # of which TVM's parser says something about its own insides
        raise InputError(f"{name} is not a Relax module in TVMScript: it has no @I.ir_module")
    try:
        module = tvm.script.from_source(_IMPORT.sub("", text), _names())
    except Exception as error:  # the text is code, so anything can come out of it
        raise InputError(f"{name} is not a Relax module in TVMScript: {_first(error)}") from error
    if not isinstance(module, tvm.IRModule):
        raise InputError(f"{name} holds one function; write it as a module (@I.ir_module)")
    return module


def _names() -> dict[str, Any]:
    """What names in a text mean: what TVM's parser knows, and operators of our own."""
    from tvm.script.parser import relax
    from tvm.script.parser.core import entry

    from hybridc.compiler.ir import roundable

    ours = ModuleType(relax.__name__)  # by this name errors speak of it
    vars(ours).update(vars(relax), hybridc=SimpleNamespace(roundable=roundable.marked))
    return {**entry._default_globals(), "R": ours, "relax": ours}  # pyright: ignore[reportPrivateUsage]


def optimise(
    module: IRModule,
    text: str,
    *,
    device: str = "cpu",
    threads: int | None = None,
    plugins: Sequence[Path] = (),
) -> IRModule:
    """Run the passes that `text` names, for the target that `device` names."""
    wanted = target.parse(device, threads)
    steps = pipeline.parse(pipeline.on_device(text, wanted.kind), pipeline.passes(plugins))
    context = Context(wanted, pipeline.rules(plugins, wanted.kind))
    return pipeline.run(steps, module, context)


def text_of(module: IRModule, whole: bool = False) -> str:
    """The module's text, as `read` takes it; the `whole` has the values of its constants.

    TVM prints types of what it allocates, which its parser does not take.
    """
    return _ALLOCATION.sub(r"\1)", module.script(show_meta=whole))


def write(module: IRModule, path: Path) -> None:
    """Write the module's text.  Raises OSError."""
    with replacing(path) as stream:
        stream.write(f"{text_of(module)}\n".encode())


def write_whole(module: IRModule, path: Path) -> None:
    """Write the module's text with the values of its constants.  Raises OSError."""
    with replacing(path) as stream:
        stream.write(f"{text_of(module, whole=True)}\n".encode())


def check(before: IRModule, after: IRModule, rtol: float, atol: float) -> str:
    """Run `main` of both on random inputs; say in a line how far they are apart.

    Raises WrongAnswerError beyond the tolerance, InputError if `main` has open shapes.
    """
    inputs = list(random_feed(_inputs(before)).values())
    worst = 0.0
    for index, (want, got) in enumerate(
        zip(evaluate(before, inputs), evaluate(after, inputs), strict=True)
    ):
        difference = np.abs(got.astype("float64") - want.astype("float64"))
        worst = max(worst, float(difference.max(initial=0)))
        if not np.allclose(got, want, rtol, atol, equal_nan=True):
            raise WrongAnswerError(
                f"output {index} changed by up to {worst:.3g}, beyond rtol {rtol:g}, atol {atol:g}"
            )
    return f"same results within rtol {rtol:g}, atol {atol:g}; largest difference {worst:.3g}"


def _inputs(module: IRModule) -> tuple[TensorSpec, ...]:
    if "main" not in [var.name_hint for var in module.get_global_vars()]:
        raise InputError("the module has no function `main` to run")
    return tuple(_spec(param) for param in module["main"].params)


def _spec(param: Any) -> TensorSpec:
    try:
        shape = tuple(int(size) for size in param.ty.shape.values)
        return TensorSpec(param.name, shape, str(param.ty.dtype))
    except (AttributeError, TypeError):
        raise InputError(
            f"input {param.name} of `main` is not a tensor of a fixed shape; nothing to compare"
        ) from None


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
