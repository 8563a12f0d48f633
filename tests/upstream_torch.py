"""What is wrong on the roads from torch, each with a check that is true as long as it is there."""

from collections.abc import Callable
from typing import Any


def _imported(function: Callable[..., Any], *inputs: Any) -> Any:
    """What TVM's own importer makes of a function: the module."""
    import torch
    from tvm.relax.frontend.torch import from_exported_program

    class Function(torch.nn.Module):
        def forward(self, *given: Any) -> Any:
            return function(*given)

    program = torch.export.export(Function(), inputs)
    return from_exported_program(program, unwrap_unit_return_tuple=True)


def products_are_float32() -> bool:
    """A product of float64 comes in as float32."""
    import torch

    x = torch.ones(2, 2, dtype=torch.float64)
    return str(_imported(torch.matmul, x, x)["main"].ret_ty.dtype) == "float32"


def statistics_of_norms_are_outputs() -> bool:
    """The mean that a layer norm gives beside its result is that result."""
    import torch

    def function(x: Any) -> Any:
        return torch.native_layer_norm(x, [3], None, None, 1e-5)[1]

    kind = _imported(function, torch.ones(2, 3))["main"].ret_ty
    return [int(extent) for extent in kind.shape.values] == [2, 3]


def places_of_maxima_are_maxima() -> bool:
    """The places that max_pool2d gives are floats: the maxima once more."""
    import torch

    def function(x: Any) -> Any:
        return torch.nn.functional.max_pool2d(x, 2, return_indices=True)[1]

    return str(_imported(function, torch.ones(1, 1, 4, 4))["main"].ret_ty.dtype) == "float32"


def sampling_has_another_shape() -> bool:
    """grid_sample takes the shape of its result from other axes of the grid."""
    import torch

    def function(x: Any, grid: Any) -> Any:
        return torch.nn.functional.grid_sample(x, grid, align_corners=False)

    kind = _imported(function, torch.ones(1, 1, 4, 4), torch.zeros(1, 3, 5, 2))["main"].ret_ty
    return [int(extent) for extent in kind.shape.values] != [1, 1, 3, 5]


CHECKS = (
    (
        "TVM",
        "products of float64 in torch programs become float32",
        "compiler/frontends/aten/products.py",
        products_are_float32,
    ),
    (
        "TVM",
        "statistics of norms in torch programs are their results",
        "compiler/frontends/aten/normalization.py",
        statistics_of_norms_are_outputs,
    ),
    (
        "TVM",
        "places of maxima in torch programs are the maxima",
        "compiler/frontends/aten/pooling.py",
        places_of_maxima_are_maxima,
    ),
    (
        "TVM",
        "grid_sample in torch programs has another shape",
        "torch's own decomposition",
        sampling_has_another_shape,
    ),
)
