"""What a program of torch asserts about its data, by `torch._check` and its like.

An answer does not depend on it: as by way of ONNX, it is left out.
"""

from typing import Any

import torch

_ASSERTIONS = frozenset(
    {
        "aten._assert_async.default",
        "aten._assert_async.msg",
        "aten._assert_scalar.default",
        "aten._assert_tensor_metadata.default",
    }
)
_NUMBERS = (bool, int, float, torch.SymBool, torch.SymInt, torch.SymFloat)


def without(exported: Any) -> Any:
    """The program, changed in place: without assertions, and numbers that they alone read."""
    graph = exported.graph
    for node in reversed(list(graph.nodes)):
        if node.op != "call_function" or node.users:
            continue
        if str(node.target) in _ASSERTIONS or isinstance(node.meta.get("val"), _NUMBERS):
            graph.erase_node(node)
    exported.graph_module.recompile()
    return exported
