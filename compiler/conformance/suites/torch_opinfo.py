"""The operators, modules and export examples that the torch wheel carries for its own tests."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import numpy as np

from hybridc.compiler.conformance.comparison import Tolerance, difference
from hybridc.compiler.conformance.suite import Entry, Result, Suite, Verdict
from hybridc.compiler.errors import InputError, ModelError

_TOLERANCE = Tolerance(1e-3, 1e-4)
_EQUAL = Tolerance(0.0, 0.0)
_NOT_HERE = "jiterator"  # made of CUDA code
# What they give is memory that nobody wrote.
_UNWRITTEN = frozenset(
    f"op/{name}"
    for name in (
        *("empty", "empty_like", "empty_permuted", "empty_strided"),
        *("new_empty", "new_empty_strided"),
    )
)
# Vectors that are right with any sign.
_UP_TO_SIGNS = ("linalg.eigh", "linalg.svd", "svd")
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class TorchOpinfo(Suite):
    """The first float32 sample of each OpInfo, ModuleInfo and ExportDB entry, against eager."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "expecttest")
    warm_up: ClassVar[tuple[str, ...]] = ("op/mm", "op/linalg.cholesky")  # by either road

    def entries(self, core: bool) -> Sequence[Entry]:
        """Every entry that takes float32; the core are the operators alone."""
        return [
            Entry(name, name.partition("/")[0])
            for name in _cases()
            if not core or name.startswith("op/")
        ]

    def examine(self, name: str) -> Result:
        """Compile and run one case."""
        import torch
        from torch.utils._pytree import tree_flatten, tree_unflatten

        if name in _UNWRITTEN:
            raise ModelError("its result is memory that nobody wrote")
        torch.manual_seed(0)
        function, args, kwargs = _cases()[name]()
        leaves, spec = tree_flatten((args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

        class Case(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                if isinstance(function, torch.nn.Module):
                    self.inner = function

            def forward(self, *tensors: Any) -> Any:
                arguments = list(leaves)
                for place, tensor in zip(places, tensors, strict=True):
                    arguments[place] = tensor
                positional, keyword = tree_unflatten(arguments, spec)
                return function(*positional, **keyword)

        module, tensors = Case().eval(), tuple(leaves[place].detach() for place in places)
        wanted = _eager(module, tensors)
        got, helped = _compiled(module, tensors)
        right = Verdict.FALLBACK if helped else Verdict.PASS
        differs = difference(got, wanted, _TOLERANCE)
        return Result("", "", Verdict.WRONG if differs else right, differs or "")


def _eager(module: Any, tensors: tuple[Any, ...]) -> list[Any]:
    """What torch computes, the same at each call.  Raises ModelError if that cannot be."""
    import torch
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        try:
            both = [tree_leaves(module(*_copies(tensors))) for _ in range(2)]
        except RuntimeError as error:
            raise ModelError(f"torch itself refuses it: {error}") from None
    wanted, again = ([_array(x) for x in each if isinstance(x, torch.Tensor)] for each in both)
    if difference(wanted, again, _EQUAL):
        raise ModelError("it draws random numbers")
    if not wanted:
        raise ModelError("it gives no tensors")
    return wanted


def _compiled(module: Any, tensors: tuple[Any, ...]) -> tuple[list[Any], bool]:
    """The outputs by our own compiler, without its own check, and whether ONNX Runtime helped."""
    from hybridc.compiler import driver
    from hybridc.compiler.configuration import plans
    from hybridc.compiler.runtime.session import InferenceSession

    options = plans.Options(verify="off", threads=1)
    outcome = driver.compile_source(module, options, example_inputs=_copies(tensors))
    names = [spec.name for spec in outcome.artifact.inputs]
    feed = dict(zip(names, map(_array, tensors), strict=True))
    outputs = InferenceSession(outcome.artifact, 1).run(None, feed)
    return outputs, bool(outcome.artifact.regions)


def _copies(tensors: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(tensor.clone() for tensor in tensors)


def _array(tensor: Any) -> Any:
    if tensor.layout is not _strided() or tensor.is_quantized:
        raise ModelError(f"a tensor is {tensor.layout}")
    plain = tensor.detach().resolve_conj().resolve_neg()
    try:
        return np.array((_pairs(plain) if plain.is_complex() else plain).numpy())
    except TypeError as error:  # bfloat16 and its like
        raise ModelError(str(error)) from None


def _pairs(tensor: Any) -> Any:
    """Complex numbers as models have them: pairs of real ones in a last axis."""
    import torch

    return torch.view_as_real(tensor)


def _strided() -> Any:
    import torch

    return torch.strided


@cache
def _cases() -> dict[str, Callable[[], Call]]:
    """How to make each case, by name."""
    try:
        importlib.import_module("torch.testing._internal.common_utils")
    except ImportError as error:
        raise InputError(
            f"the suite torch-opinfo needs {error.name}: pip install {error.name}"
        ) from None
    return {**dict(_operators()), **dict(_modules()), **dict(_examples())}


def _operators() -> Iterator[tuple[str, Callable[[], Call]]]:
    import torch
    from torch.testing._internal.common_methods_invocations import op_db

    for op in op_db:
        if op.supports_dtype(torch.float32, "cpu") and not op.name.startswith(_NOT_HERE):
            variant = f".{op.variant_test_name}" if op.variant_test_name else ""
            yield f"op/{op.name}{variant}", partial(_sample, op)


def _sample(op: Any) -> Call:
    import torch

    sample = next(iter(op.sample_inputs("cpu", torch.float32, requires_grad=False)))
    function = op.op
    if op.name in _UP_TO_SIGNS:
        function = _after(op.op, sample.output_process_fn_grad)
    return function, (sample.input, *sample.args), dict(sample.kwargs)


def _after(function: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """What torch itself makes of the results before it compares them."""
    return lambda *args, **kwargs: then(function(*args, **kwargs))


def _modules() -> Iterator[tuple[str, Callable[[], Call]]]:
    from torch.testing._internal.common_modules import module_db

    for info in module_db:
        yield f"module/{info.name}", partial(_module, info)


def _module(info: Any) -> Call:
    import torch

    samples = info.module_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=False, training=False
    )
    first = samples[0]
    constructor, forward = first.constructor_input, first.forward_input
    if forward is None:
        raise ModelError("it has no inputs")
    module = info.module_cls(*constructor.args, **constructor.kwargs).eval()
    return module, tuple(forward.args), dict(forward.kwargs)


def _examples() -> Iterator[tuple[str, Callable[[], Call]]]:
    from torch._export.db.examples import all_examples

    for name, case in all_examples().items():
        yield f"export/{name}", partial(_example, case)


def _example(case: Any) -> Call:
    return case.model, tuple(case.example_args), dict(case.example_kwargs)
