"""How long the import of a model takes for each node, and how that grows with the model.

The graphs hold no large constants, so that constant folding takes little of it.  The exponent is
that of time against nodes from the smallest graph to the largest; 1 is linear.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator

import command_line
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler.frontends import onnx_model

SIZES = (100, 1_000, 10_000)
_ASKED = 1.0  # ms a node
_LINEAR = 1.1
_WIDTH = 8


def run(sizes: tuple[int, ...] = SIZES) -> str:
    """Measure each kind of graph at each size; return the table."""
    heads = [f"{size:,} nodes" for size in sizes]
    lines = [f"| graph | {' | '.join(heads)} | exponent |", "|---" * (len(sizes) + 2) + "|"]
    for kind in (chain, mixed, shapes, residual):
        times = [_seconds(kind, size) for size in sizes]
        cells = [_cell(seconds, size) for seconds, size in zip(times, sizes, strict=True)]
        power = math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0])
        missed = " **missed**" if power > _LINEAR else ""
        name = str(kind.__doc__).rstrip(".")
        lines.append(f"| {name} | {' | '.join(cells)} | {power:.2f}{missed} |")
    return "\n".join(lines)


def chain(x: str, index: int) -> Iterator[onnx.NodeProto]:
    """Elementwise, one after another."""
    operator = ("Relu", "Sigmoid", "Neg", "Abs")[index % 4]
    yield helper.make_node(operator, [x], [f"v{index}"])


def mixed(x: str, index: int) -> Iterator[onnx.NodeProto]:
    """Layers of product, bias, norm and activation."""
    yield helper.make_node("MatMul", [x, "w"], [f"p{index}"])
    yield helper.make_node("Add", [f"p{index}", "b"], [f"s{index}"])
    yield helper.make_node("LayerNormalization", [f"s{index}", "b"], [f"n{index}"])
    yield helper.make_node("Gelu", [f"n{index}"], [f"v{index}"])


def shapes(x: str, index: int) -> Iterator[onnx.NodeProto]:
    """Reshapes by chains of shape arithmetic."""
    yield helper.make_node("Shape", [x], [f"s{index}"])
    yield helper.make_node("Gather", [f"s{index}", "one"], [f"g{index}"])
    yield helper.make_node("Concat", ["minus", f"g{index}"], [f"c{index}"], axis=0)
    yield helper.make_node("Reshape", [x, f"c{index}"], [f"v{index}"])


def residual(x: str, index: int) -> Iterator[onnx.NodeProto]:
    """Blocks added to their inputs."""
    yield helper.make_node("Mul", [x, "b"], [f"m{index}"])
    yield helper.make_node("Softmax", [f"m{index}"], [f"t{index}"])
    yield helper.make_node("Add", [f"t{index}", x], [f"v{index}"])


def model(kind: Callable[[str, int], Iterator[onnx.NodeProto]], size: int) -> onnx.ModelProto:
    """A graph of about so many nodes."""
    nodes: list[onnx.NodeProto] = []
    value, index = "x", 0
    while len(nodes) < size:
        nodes.extend(kind(value, index))
        value, index = f"v{index}", index + 1
    constants = {
        "w": np.eye(_WIDTH, dtype=np.float32),
        "b": np.ones(_WIDTH, np.float32),
        "one": np.array([1]),
        "minus": np.array([-1]),
    }
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, _WIDTH])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _seconds(kind: Callable[[str, int], Iterator[onnx.NodeProto]], size: int) -> float:
    proto = model(kind, size)
    onnx_model.load(model(kind, 8), {}, True)  # imports libraries
    start = time.perf_counter()
    onnx_model.load(proto, {}, True)
    return time.perf_counter() - start


def _cell(seconds: float, size: int) -> str:
    each = 1e3 * seconds / size
    return f"{each:.2f} ms a node{' **missed**' if each > _ASKED else ''}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sizes", nargs="*", type=int, default=SIZES, help="nodes of the graphs (%(default)s)"
    )
    print(run(tuple(parser.parse_args().sizes)))


if __name__ == "__main__":
    command_line.run(main)
