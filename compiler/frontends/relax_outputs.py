"""What an imported Relax function returns, as the specs of a model."""

import re
from collections.abc import Mapping
from typing import Any

from hybridc.compiler.dims import Dim, Size
from hybridc.compiler.errors import ModelError
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.model import TensorSpec


def output_specs(
    module: IRModule, names: list[str], dims: Mapping[str, Dim] = {}
) -> tuple[TensorSpec, ...]:
    """Describe the outputs of `main`: one tensor, or a flat tuple of as many as there are names.

    `dims` are the open sizes.  Raises ModelError for anything else, and for a shape that depends on
    the data.
    """
    from tvm import relax

    kind = module["main"].ret_ty
    fields = [kind] if isinstance(kind, relax.TensorType) else list(getattr(kind, "fields", []))
    if len(fields) != len(names):
        raise ModelError(f"the model has {len(names)} outputs, but was imported with {len(fields)}")
    return tuple(_spec(name, field, dims) for name, field in zip(names, fields, strict=True))


def with_bounds(module: IRModule, dims: Mapping[str, Dim]) -> IRModule:
    """The module with a note of what bounds its open sizes; TVM plans memory by it."""
    if not dims:
        return module
    lows = {name: dim.low for name, dim in dims.items()}
    highs = {name: dim.high for name, dim in dims.items() if dim.high is not None}
    main = module["main"].with_attr("tir_var_lower_bound", lows)
    module = module.clone()
    module["main"] = main.with_attr("tir_var_upper_bound", highs) if highs else main
    return module


def _spec(name: str, kind: Any, dims: Mapping[str, Dim]) -> TensorSpec:
    from tvm import relax

    if not isinstance(kind, relax.TensorType):
        raise ModelError(f"output {name!r} is not a tensor but {kind}")
    sizes = list(kind.shape.values) if isinstance(kind.shape, relax.ShapeExpr) else []
    if len(sizes) != kind.ndim:
        raise ModelError(f"the shape of output {name!r} depends on the data, not on shapes alone")
    return TensorSpec(name, tuple(_size(name, size, dims) for size in sizes), str(kind.dtype))


def _size(name: str, size: Any, dims: Mapping[str, Dim]) -> Size:
    """A number, an open size, or an expression of open sizes by its text."""
    from tvm import tirx
    from tvm.tirx.analysis import undefined_vars

    if isinstance(size, tirx.IntImm):
        return int(size)
    if any(var.name not in dims for var in undefined_vars(size)):
        raise ModelError(f"the shape of output {name!r} depends on the data, not on shapes alone")
    if isinstance(size, tirx.Var):  # whose name may hold what TVM would write otherwise
        return dims[size.name]
    text = re.sub(r"T\.int64\((-?\d+)\)", r"\1", str(size)).replace("T.", "")
    return dims.get(text, Dim(text))
