"""Load a model from wherever it comes: one function, one kind of result."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hybridc.compiler import dims
from hybridc.compiler.dims import Shape
from hybridc.compiler.errors import InputError, ModelError
from hybridc.compiler.model import Model

_SUFFIXES = (".onnx", ".pt2")


def load(
    source: Any,
    *,
    shapes: Mapping[str, Any] = {},
    example_inputs: tuple[Any, ...] | None = None,
    fallback: bool = False,
    without: Collection[str] = (),
) -> Model:
    """Load a path (`.onnx`, `.pt2`), an `onnx.ModelProto`, a torch module or an ExportedProgram.

    `shapes` sizes the open axes of an ONNX model, by input name or by the axis' own, or says what
    bounds them (see `dims.shape`); what it leaves out stays open.  `example_inputs` are the
    arguments that a `torch.nn.Module` is traced with.  With `fallback`, operators that cannot be
    imported are left to ONNX Runtime.  Of the roads by which torch models come in, those of
    `without` are left out.  Raises InputError for anything else, and ModelError for a model that
    cannot be compiled.
    """
    if is_onnx(source):
        _refuse("example_inputs", example_inputs, "an ONNX model")
        from hybridc.compiler.frontends import onnx_model

        sizes = {name: dims.shape(each) for name, each in shapes.items()}
        return onnx_model.load(source if is_proto(source) else Path(source), sizes, fallback)
    from hybridc.compiler.frontends import torch_model

    _refuse("shapes", shapes, "a torch model, which has those of its example inputs")
    program = Path(source) if _is_path(source) else source
    roads = [road for road in torch_model.roads_of(fallback) if road not in without]
    if not roads:
        raise ModelError("all were tried")
    return torch_model.load(program, example_inputs, roads)


def is_onnx(source: Any) -> bool:
    """Whether a source is ONNX, and not torch; raises InputError if it is neither.

    Nothing is imported to tell: torch is optional, and slow to import.
    """
    if _is_path(source):
        path = Path(source)
        if path.suffix not in _SUFFIXES:
            raise InputError(f"{path}: a model file ends in {' or '.join(_SUFFIXES)}")
        if not path.is_file():
            raise InputError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        return path.suffix == ".onnx"
    if is_proto(source):
        return True
    if any(kind.__module__.partition(".")[0] == "torch" for kind in type(source).__mro__):
        return False
    raise InputError(
        f"a model is a path, an onnx.ModelProto, a torch.nn.Module or an ExportedProgram, "
        f"not {type(source).__name__}"
    )


def is_proto(source: Any) -> bool:
    """Whether a source is an `onnx.ModelProto`."""
    kind = type(source)
    return kind.__name__ == "ModelProto" and kind.__module__.startswith("onnx")


def parse_shape(text: str) -> tuple[str, Shape]:
    """Read `NAME=1x3x224x224`; a scalar is `NAME=scalar`, an open size `?`, `batch` or `1..64`.

    Raises InputError for other text.
    """
    name, _, sizes = text.rpartition("=")
    if not name:
        raise InputError(f"--shape {text!r} is not of the form NAME=1x3x224x224: no name")
    try:
        return name, dims.parse_shape(sizes)
    except dims.TooLargeError as error:
        raise InputError(f"--shape {text!r}: {error}") from None
    except InputError as error:
        raise InputError(
            f"--shape {text!r}: {error}; the whole is of the form NAME=1x3x224x224"
        ) from None


def _is_path(source: Any) -> bool:
    return isinstance(source, str | Path)


def _refuse(option: str, value: Any, owner: str) -> None:
    if value:
        raise InputError(f"{option} is not used with {owner}")
