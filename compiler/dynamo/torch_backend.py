"""`torch.compile(model, backend="hybridc")`: graphs traced by Dynamo, compiled or run eagerly.

Dynamo finds the graphs, guards them, and traces again if a guard fails.  AOTAutograd makes each
graph functional: writes to inputs become copies behind all else, and outputs that are views of
inputs are recreated from them.  What remains are ATen operators on tensors, which `torch_region`
compiles.  Gradients are not computed: a graph that needs them runs eagerly.
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.dynamo import torch_numbers, torch_overlaps, torch_places
from hybridc.compiler.errors import InputError, first_line, hint

if TYPE_CHECKING:
    from hybridc.compiler.dynamo.torch_region import Region
    from hybridc.compiler.dynamo.torch_split import Split

    Code = Region | Split

# Sizes for which one graph is compiled; code is specific to them, so each takes a compilation.
_MOST_VARIANTS = 16
# Options that make no sense here: the example inputs calibrate, and Dynamo reports.
_NOT_HERE = frozenset(
    {"calibration", "dump_ir", "lock", "monitor", "monitor_interval", "progress", "timed", "trace"}
)


_LONGEST = 300  # characters of a reason


class FallbackWarning(UserWarning):
    """A graph runs eagerly; the message gives the reason."""


class GradientsRequiredError(Exception):
    """AOTAutograd asked for a graph that is differentiated."""


def torch_backend(
    graph: Any,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Compile a graph from Dynamo; pass this to `torch.compile` as its `backend`.

    `options` are fields of `Options` by name (`{"dtype": "bf16"}`), and `freeze`: if false, weights
    are inputs of each call instead of constants.  Raises InputError if one is unknown or wrong.
    """
    del example_inputs  # the first call brings real ones
    if mode not in (None, "default"):
        raise InputError(f"mode {mode!r} is of torch's own backend; give options= instead")
    chosen, freeze = read_options(options or {})
    return Graph(graph, chosen, freeze)


def read_options(chosen: Mapping[str, Any]) -> tuple[Options, bool]:
    """The options of a compilation, and whether weights are constants."""
    known = {field.name for field in dataclasses.fields(Options)} - _NOT_HERE | {"freeze"}
    for name in chosen:
        if name not in known:
            raise InputError(f"the backend hybridc has no option {name!r}; {hint(name, known)}")
    plain = {name: value for name, value in chosen.items() if name != "freeze"}
    options = Options(**plain)
    plans.plan(options)  # all that is wrong is said now, not by running eagerly
    return options, bool(chosen.get("freeze", True))


class Graph:
    """A graph of Dynamo's, compiled for each set of sizes that its calls bring.

    Dynamo passes a size that varies as an integer among the arguments, beside the tensors, and
    other numbers as tensors.
    """

    def __init__(self, graph: Any, options: Options, freeze: bool) -> None:
        self._graph, self._options = graph, options
        nodes = graph.graph.nodes
        self._static = [freeze and _is_weight(node) for node in nodes if node.op == "placeholder"]
        self._numbers = torch_numbers.places(graph)
        self._variants: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._written: frozenset[int] = frozenset()
        self._sizes: tuple[int, ...] | None = None

    def __call__(self, *args: Any) -> Any:
        """Compute the graph's outputs."""
        variant = self._variants.get(self._key(args))
        if variant is None:
            with _one_at_a_time():
                variant = self._variants.get(self._key(args))
                if variant is None:
                    return self._first(args)
        return variant(*args)

    def _first(self, args: Sequence[Any]) -> Any:
        """Compute by a new variant, which shows what the graph writes to."""
        variant, before = self._compiled(args), torch_overlaps.versions(args)
        outputs = variant(*args)
        self._written |= torch_overlaps.written(args, before)
        self._variants[self._key(args)] = variant
        return outputs

    def _key(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """Sizes, numbers that come as tensors, and overlaps: what code is specific to."""
        if self._sizes is None:  # which stay the same: they are those of the graph
            numbers = enumerate(isinstance(value, int | float) for value in args)
            self._sizes = tuple(place for place, is_number in numbers if is_number)
        key = [args[place] for place in self._sizes]
        if self._numbers:
            key += self._values(args).values()
        if self._written:
            # Weights that nothing is written to are left out: there may be hundreds.
            read = {place for place, static in enumerate(self._static) if not static}
            key += torch_overlaps.overlaps(args, read | self._written, self._written)
        return tuple(key)

    def _values(self, args: Sequence[Any]) -> dict[int, torch_numbers.Number]:
        return {place: args[place].item() for place in self._numbers}

    def _compiled(self, args: Sequence[Any]) -> Callable[..., Any]:
        from hybridc.compiler.dynamo.torch_region import Region
        from hybridc.compiler.dynamo.torch_split import Split, reason

        if len(self._variants) >= _MOST_VARIANTS:
            return self._eager(
                f"it was compiled for {_MOST_VARIANTS} sizes already; pad its inputs"
                " and give numbers that vary as tensors"
            )
        weights = [value for value, static in zip(args, self._static, strict=True) if static]
        regions: list[Code] = []

        def region(aten: Any) -> Region:
            return Region(aten, weights, self._options)

        def compiler(aten: Any, _: Any) -> "Code":
            if why := reason(aten):
                regions.append(Split(aten, region, self._told))
                self._told(why)
            else:
                regions.append(region(aten))
            return regions[0]

        try:
            graph = torch_numbers.fixed(self._graph, self._values(args))
            graph = torch_places.listed(graph)
            functional = functionalised(graph, args, compiler)
        except GradientsRequiredError:
            return self._eager("gradients are required; call it under torch.no_grad()")
        except Exception as error:  # tracing runs operators that raise anything
            return self._eager(_reason(error))
        return self._variant(functional, regions[0])

    def _variant(
        self, functional: Callable[..., Any], region: "Region | Split"
    ) -> Callable[..., Any]:
        """A function that runs a variant; one that cannot be compiled runs eagerly from then on."""
        chosen = [functional]

        def run(*args: Any) -> Any:
            outputs = chosen[0](*args)
            if region.waits:
                with _one_at_a_time():
                    try:
                        region.compile()
                    except Exception as error:  # importers raise anything
                        chosen[0] = self._eager(_reason(error))
            return outputs

        return run

    @staticmethod
    def _told(reason: str) -> None:
        text = f"torch.compile: a part of a graph runs eagerly, not by hybridc: {reason}"
        warnings.warn(text, FallbackWarning, stacklevel=2)

    def _eager(self, reason: str) -> Callable[..., Any]:
        text = f"torch.compile: a graph runs eagerly, not by hybridc: {reason}"
        warnings.warn(text, FallbackWarning, stacklevel=2)
        run: Callable[..., Any] = self._graph
        return run


def _reason(error: Exception) -> str:
    """What went wrong, in one line; of what cannot be traced, torch says the name alone."""
    line = first_line(error)
    if line == str(getattr(error, "func", None)):
        return f"operator {line!r} has a result that depends on the data"
    return line[:_LONGEST]


def _one_at_a_time() -> AbstractContextManager[Any]:
    """The lock under which Dynamo traces: of two tracers that run at once, one fails."""
    from torch._dynamo import convert_frame

    lock: AbstractContextManager[Any] = convert_frame.compile_lock
    return lock


def functionalised(
    graph: Any, args: Sequence[Any], compiler: Callable[[Any, Any], Any]
) -> Callable[..., Any]:
    """The graph by way of AOTAutograd; `compiler` gets the functional graph of ATen operators.

    Raises GradientsRequiredError if outputs are to be differentiated.
    """
    from torch._functorch.aot_autograd import aot_module_simplified
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def refuse(*_: Any) -> Any:
        raise GradientsRequiredError

    compile_graph: Any = aot_module_simplified
    # Other kernels of attention are operators of one CPU's library, unknown to importers.
    with sdpa_kernel(SDPBackend.MATH):
        compiled: Callable[..., Any] = compile_graph(
            graph,
            args,
            fw_compiler=refuse,
            bw_compiler=refuse,
            inference_compiler=compiler,
            keep_inference_input_mutations=True,  # code writes in place what it can
        )
    return compiled


def _is_weight(node: Any) -> bool:
    """Whether an argument is a parameter or buffer of a module."""
    argument = node.meta.get("grapharg")
    name = str(getattr(getattr(argument, "source", None), "name", ""))
    return "._parameters[" in name or "._buffers[" in name
