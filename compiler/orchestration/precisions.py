"""The precisions that a model may be computed in, and the passes that take it to each."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.interfaces import Pass
from hybridc.compiler.plugin import Catalogue
from hybridc.compiler.target import CPU, CUDA

AUTO, FULL = "auto", "fp32"


@dataclass(frozen=True)
class Insertion:
    """A pass, as text, and the pass of a pipeline that it goes `before`, or `after`.

    Where the pipeline lacks that pass, one that is `needed` is an error, and others are left out.
    """

    text: str
    before: str = ""
    after: str = ""
    needed: bool = True

    @property
    def anchor(self) -> str:
        """The pass that it goes beside."""
        return self.before or self.after


# What each precision adds to a pipeline; by name, the most precise first.
PRECISIONS: Mapping[str, tuple[Insertion, ...]] = MappingProxyType(
    {
        FULL: (),
        "fp16": (Insertion("mixed-precision{dtype=float16}", before="pack-weights"),),
        "bf16": (
            Insertion("mixed-precision{dtype=bfloat16}", before="pack-weights"),
            Insertion("narrow-residuals", after="fuse", needed=False),
        ),
        "int8-weights": (Insertion("quantize-weights{bits=8 group=128}", before="pack-weights"),),
        "int8": (Insertion("quantize", before="integer-arithmetic"),),
        "int8-dynamic": (Insertion("quantize-dynamic", before="layout"),),
        "int4-weights": (
            Insertion("quantize-weights{bits=4 group=32 search=true}", before="pack-weights"),
        ),
    }
)
# Weights are rounded when the model is compiled.
_FOLDED = Insertion("fold-constants", before="widen-types", needed=False)
# The same for GPUs, whose pipeline packs no weights; TF32 is for them alone.
CUDA_PRECISIONS: Mapping[str, tuple[Insertion, ...]] = MappingProxyType(
    {
        FULL: (),
        "tf32": (Insertion("tensor-float", after="fuse"),),
        "fp16": (
            Insertion("mixed-precision{dtype=float16}", before="widen-types"),
            _FOLDED,
            Insertion("narrow-residuals{dtype=float16 reduced=true}", after="fuse", needed=False),
        ),
        "bf16": (
            Insertion("mixed-precision{dtype=bfloat16}", before="widen-types"),
            _FOLDED,
            Insertion("narrow-residuals{dtype=bfloat16 reduced=true}", after="fuse", needed=False),
        ),
        # What is left in float32 beside products of bytes would take longest.
        "int8": (
            Insertion("quantize", before="integer-arithmetic"),
            Insertion("tensor-float{attention=true}", after="fuse"),
        ),
        "int8-dynamic": (
            Insertion("quantize-dynamic", before="layout"),
            Insertion("tensor-float{attention=true}", after="fuse"),
        ),
        # What weights of so few bits are multiplied by is not rounded worse by tensor cores.
        "int8-weights": (
            Insertion("quantize-weights{bits=8 group=128}", before="widen-types"),
            Insertion("tensor-float", after="fuse"),
        ),
        "int4-weights": (
            Insertion("quantize-weights{bits=4 group=32 search=true}", before="widen-types"),
            Insertion("tensor-float", after="fuse"),
        ),
    }
)
# Activations and weights together, as in `fp16+int4-weights`.  On CPUs packed weights are still
# multiplied by activations of fp32, and 16 bits are for the other products.
_ACTIVATIONS, _WEIGHTS = ("fp16", "bf16"), ("int8-weights", "int4-weights")
PAIRS = tuple(f"{activations}+{weights}" for activations in _ACTIVATIONS for weights in _WEIGHTS)
# The precisions that need data, to find the ranges of what they store.
CALIBRATED = frozenset({"int8"})


def of_device(device: str) -> Mapping[str, tuple[Insertion, ...]]:
    """The precisions that a kind of target has."""
    return CUDA_PRECISIONS if device == CUDA else PRECISIONS


def names() -> tuple[str, ...]:
    """What `--dtype` takes beside `PAIRS`; `auto` leaves the choice to the contract."""
    return tuple(dict.fromkeys((AUTO, *PRECISIONS, *CUDA_PRECISIONS)))


def parts(dtype: str) -> tuple[str, ...]:
    """A precision, or the two of a pair: the weights first, which are packed as they are."""
    return tuple(reversed(dtype.split("+")))


def idle(dtype: str, passes: Collection[str]) -> str:
    """The one of a pair whose pass is among those that changed nothing; or nothing."""
    halves = parts(dtype) if dtype in PAIRS else ()
    named = {half: PRECISIONS[half][0].text.partition("{")[0] for half in halves}
    return next((half for half, name in named.items() if name in passes), "")


def check(dtype: str, exact: bool, device: str = CPU) -> None:
    """Raise InputError if there is no such precision, or `exact` does not allow it."""
    if "+" in dtype and dtype not in PAIRS:
        raise InputError(f"dtype {dtype!r} is not a known pair: {', '.join(PAIRS)}")
    if dtype not in (*names(), *PAIRS):
        raise InputError(f"dtype {dtype!r} is not known; {hint(dtype, names())}")
    if dtype not in (AUTO, *of_device(device), *PAIRS):
        known = ", ".join(of_device(device))
        raise InputError(f"dtype {dtype} is not available for target kind {device}; known: {known}")
    if exact and dtype not in (AUTO, FULL):
        raise InputError(
            f"exact keeps the roundings of the model, dtype {dtype} adds some: choose one"
        )


def lowered(  # noqa: PLR0913 - the pipeline, and what decides between its passes' options
    steps: Sequence[Pass],
    dtype: str,
    catalogue: Catalogue[Pass],
    precise: Sequence[str] = (),
    device: str = CPU,
    *,
    tight: bool = False,
) -> tuple[Pass, ...]:
    """The steps with the passes that a precision adds; `auto` adds none.

    Those that can `keep` products as they are keep the `precise` ones; if memory is `tight`,
    those that can leave weights packed do, as in pairs, whose other half would store them in 16
    bits.  Raises InputError if the steps lack a pass that one of these has to stand beside.
    """
    made = [_in_kernels(step) for step in steps] if tight and _halves(dtype) else list(steps)
    tight = tight or dtype in PAIRS
    known = of_device(device)
    for each in [each for part in parts(FULL if dtype == AUTO else dtype) for each in known[part]]:
        present = [plugin.name_of(type(step)) for step in made]
        if each.anchor in present:
            at = present.index(each.anchor) + bool(each.after)
            made.insert(at, _adjusted(catalogue.create(each.text), precise, tight))
        elif each.needed:
            raise InputError(f"dtype {dtype} needs {each.anchor} in the pipeline, for {each.text}")
    return tuple(made)


def _halves(dtype: str) -> bool:
    """Whether a precision stores weights in 16 bits."""
    return not set(_ACTIVATIONS).isdisjoint(parts(dtype))


def _in_kernels(step: Pass) -> Pass:
    """The pass that packs weights, which then leaves those of 16 bits as they are."""
    packs = plugin.name_of(type(step)) == "pack-weights"
    return replace(step, **{"in_kernel": True}) if packs else step


def of_steps(steps: Sequence[Pass]) -> str:
    """The least precision that the steps lower a model to, or the pair of them."""
    present = [_adjusted(step, (), False) for step in steps]
    found: list[str] = []
    # Weights are multiplied as TF32 on GPUs.
    known = {FULL: (), "tf32": CUDA_PRECISIONS["tf32"], **PRECISIONS}
    for name, insertions in known.items():
        needed = pipeline.parse(",".join(each.text for each in insertions if each.needed))
        if all(step in present for step in needed):
            found.append(name)
    pairs = [pair for pair in PAIRS if set(parts(pair)) <= set(found)]
    return (pairs or found)[-1]


def kept(steps: Sequence[Pass]) -> tuple[str, ...]:
    """The products that passes which lower precision were told to leave alone."""
    found = [str(getattr(step, "keep", "")) for step in steps]
    return tuple(dict.fromkeys(name for text in found for name in text.split(",") if name))


def _adjusted(step: Pass, precise: Sequence[str], tight: bool) -> Pass:
    """The pass with those of the options that it has: what to keep, and whether memory is tight."""
    wanted = {"keep": ",".join(precise), "in_kernel": tight}
    return replace(step, **{e.name: wanted[e.name] for e in fields(step) if e.name in wanted})
