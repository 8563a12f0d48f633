"""What an imported Relax function returns, as the specs of a model."""

from typing import Any

from hybridc.compiler.errors import ModelError
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.model import TensorSpec


def output_specs(module: IRModule, names: list[str]) -> tuple[TensorSpec, ...]:
    """Describe the outputs of `main`: one tensor, or a flat tuple of as many as there are names.

    Raises ModelError for anything else, and for a shape that depends on the data.
    """
    from tvm import relax

    kind = module["main"].ret_ty
    fields = [kind] if isinstance(kind, relax.TensorType) else list(getattr(kind, "fields", []))
    if len(fields) != len(names):
        raise ModelError(f"the model has {len(names)} outputs, but was imported with {len(fields)}")
    return tuple(_spec(name, field) for name, field in zip(names, fields, strict=True))


def _spec(name: str, kind: Any) -> TensorSpec:
    from tvm import relax, tirx

    if not isinstance(kind, relax.TensorType):
        raise ModelError(f"output {name!r} is not a tensor but {kind}")
    sizes = list(kind.shape.values) if isinstance(kind.shape, relax.ShapeExpr) else []
    if len(sizes) != kind.ndim or not all(isinstance(size, tirx.IntImm) for size in sizes):
        raise ModelError(f"the shape of output {name!r} depends on the data, not on shapes alone")
    return TensorSpec(name, tuple(int(size) for size in sizes), str(kind.dtype))
