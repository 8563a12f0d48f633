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


def _written(function: Callable[..., Any], *inputs: Any) -> Any:
    """The nodes that torch's exporter writes for a function."""
    import torch

    class Function(torch.nn.Module):  # type: ignore[misc]
        def forward(self, *given: Any) -> Any:
            return function(*given)

    made: Any = torch.onnx.export(Function(), inputs, dynamo=True, verbose=False, optimize=False)
    return made.model_proto.graph.node


def divisors_are_ignored() -> bool:
    """An average by another divisor is written as the plain one."""
    import torch

    def average(x: Any) -> Any:
        return torch.nn.functional.avg_pool2d(x, 2, divisor_override=3)

    nodes = _written(average, torch.ones(1, 1, 4, 4))
    return "AveragePool" in {n.op_type for n in nodes} and not {"Mul", "Div"} & {
        n.op_type for n in nodes
    }


def scattered_means_are_the_last() -> bool:
    """Scattered numbers that are to be averaged replace each other."""
    import torch

    def scattered(x: Any, index: Any) -> Any:
        return x.scatter_reduce(0, index, x, "mean")

    nodes = _written(scattered, torch.ones(3), torch.zeros(3, dtype=torch.int64))
    (node,) = (node for node in nodes if node.op_type == "ScatterElements")
    return "none" in {a.s.decode() for a in node.attribute if a.name == "reduction"}


def small_constants_are_zero() -> bool:
    """The optimiser of exported models takes x + 1e-9 for x."""
    from onnx import parser
    from onnxscript import optimizer

    text = """<ir_version: 10, opset_import: ["": 20]> graph (float[3] x) => (float[3] y) {
        e = Constant <value = float {1e-9}> ()
        y = Add (x, e)
    }"""
    model = optimizer.optimize(parser.parse_model(text))
    return "Add" not in {node.op_type for node in model.graph.node}


CHECKS = (
    (
        "torch",
        "the ONNX exporter ignores divisor_override of average pooling",
        "compiler/frontends/aten/pooling.py",
        divisors_are_ignored,
    ),
    (
        "torch",
        "the ONNX exporter replaces the mean of scattered numbers by the last one",
        "compiler/frontends/torch_import/onnx_export.py refuses it; the ATen import supports it",
        scattered_means_are_the_last,
    ),
    (
        "onnxscript",
        "the optimiser treats constants within 1e-8 of 0 as 0, and within 1e-5 of 1 as 1",
        "compiler/frontends/torch_import/onnx_export.py disables these rules",
        small_constants_are_zero,
    ),
    (
        "TVM",
        "products of float64 in torch programs become float32",
        "compiler/frontends/aten/products.py",
        products_are_float32,
    ),
    (
        "TVM",
        "mean and deviation of norms in torch programs are the norms' results",
        "compiler/frontends/aten/normalization.py",
        statistics_of_norms_are_outputs,
    ),
    (
        "TVM",
        "indices of maxima in torch programs are the maxima",
        "compiler/frontends/aten/pooling.py",
        places_of_maxima_are_maxima,
    ),
    (
        "TVM",
        "grid_sample in torch programs has a wrong shape",
        "torch's own decomposition",
        sampling_has_another_shape,
    ),
)
