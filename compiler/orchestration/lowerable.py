"""What each lower precision takes of a model, told where it finds nothing of that."""

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hybridc.compiler.orchestration import precisions
from hybridc.compiler.target import CUDA

_CONSTANT = "products with constant matrices"
_ACTIVATIONS = "products of two activations"
_CONVOLUTIONS = "convolutions with constant weights"
_DENSE = "convolutions that are not depthwise"
_WIDE = "float32"

_ALL = (_CONSTANT, _ACTIVATIONS, _CONVOLUTIONS)
_TAKES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "tf32": _ALL,
        "fp16": _ALL,
        "bf16": _ALL,
        "int8": (_CONSTANT, _CONVOLUTIONS),
        "int8-dynamic": (_CONSTANT,),
        "int8-weights": (_CONSTANT, _DENSE),
        "int4-weights": (_CONSTANT, _DENSE),
    }
)
# On CPUs one with nothing channels last beside it is a kernel of float32 already when types change.
_DEPTHWISE = "depthwise convolution"
# Operators of a graph by what people call them, and what of a precision concerns them first.
_KINDS = MappingProxyType(
    {
        "convolution": _CONVOLUTIONS,
        _DEPTHWISE: _CONVOLUTIONS,
        "matrix product": _ACTIVATIONS,
    }
)


def why_nothing(dtype: str, device: str, module: Any) -> str:
    """Why a precision lowers nothing of a module on a kind of target, and which others may."""
    found = Counter(_products(module))
    if not found:
        return "it has no matrix product and no convolution"
    wide = {kind: count for (kind, held), count in found.items() if held == _WIDE}
    if not wide:
        types = ", ".join(sorted({held for _, held in found}))
        return f"its products are of {types}, and those of {_WIDE} alone are lowered"
    listed = " and ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in sorted(wide.items()))
    if set(wide) == {_DEPTHWISE} and _CONVOLUTIONS in _taken(dtype, device):
        return f"it has {listed}, left in {_WIDE} where nothing beside is channels last"
    *first, last = _taken(dtype, device)
    taken = " and ".join(filter(None, (", ".join(first), last)))
    return f"it takes {taken}, of which there are none among {listed}{_others(dtype, device, wide)}"


def why_half(part: str, device: str, module: Any) -> str:
    """Why one of a pair lowers nothing of a module, where the other one lowers something."""
    if _DENSE in _TAKES[part]:
        return why_nothing(part, device, module)
    where = ", which read fp32 on CPUs" if device != CUDA else ""
    return f"{part} finds no product beside those with packed weights{where}"


def _products(module: Any) -> Iterator[tuple[str, str]]:
    """The kind of each product of a graph, and the type of what it multiplies."""
    from hybridc.compiler.ir.rewrite import bindings_of, operator, relax_functions  # TVM takes time

    for _, function in relax_functions(module):
        for binding in bindings_of(function):
            name = operator(binding.value)
            if name == "matmul" or name.startswith("nn.conv"):
                yield _kind(name, binding.value), str(binding.value.args[0].ty.dtype)


def _kind(name: str, value: Any) -> str:
    if name == "matmul":
        return "matrix product"
    from hybridc.compiler.ir.rewrite import shape

    alone = name == "nn.conv2d" and int(value.attrs.groups) > 1 and shape(value.args[1])[1] == 1
    return _DEPTHWISE if alone else "convolution"


def _taken(dtype: str, device: str) -> tuple[str, ...]:
    """What a precision, or a pair, takes; on GPUs weights of convolutions are not packed."""
    found = dict.fromkeys(kind for part in precisions.parts(dtype) for kind in _TAKES[part])
    return tuple(each for each in found if device != CUDA or each != _DENSE)


def _others(dtype: str, device: str, kinds: Mapping[str, int]) -> str:
    """The precisions that take what this one does not."""
    for kind in sorted(kinds):
        wanted = _KINDS[kind]
        others = [
            name
            for name in precisions.of_device(device)
            if name != precisions.FULL and wanted in _taken(name, device)
        ]
        if not set(precisions.parts(dtype)) & set(others):
            return f"; {', '.join(others)} take {wanted}"
    return ""
