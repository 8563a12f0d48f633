"""Which lower precisions may help a model on its target, before any of them is compiled."""

from collections.abc import Collection

from hybridc.compiler import target
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.orchestration import precisions
from hybridc.compiler.orchestration.expected_gains.gains import Facts
from hybridc.compiler.orchestration.stages import WITHOUT, Stage
from hybridc.compiler.target import Target
from hybridc.compiler.text.units import format_size

# Operations for each byte of a product of 6 rows with weights of fp32: with more rows, arithmetic
# takes longer than reading the weights.
_BOUND = 3.0
# What a CPU needs to read a precision.
_READ = {"fp16": "f16c"}
# What a GPU needs to multiply in a precision faster than in fp32; all multiply fp16 so.
_NEEDED_OF_GPU = {
    "tf32": "mma.tf32",
    "bf16": "mma.bf16",
    "int8": "mma.int8",
    "int8-dynamic": "mma.int8",
}
# Those that gain by smaller weights alone, on GPUs as well; and those that do so on CPUs that
# multiply them no faster than fp32.
_PACKED = frozenset({"int8-weights", "int4-weights"})
_HALVES = ("bf16", "fp16")
# Those that another one, which is tried as well, equals in size.
_NO_SMALLER = {"fp16": "bf16", "int8-dynamic": "int8-weights"}


def idle(stage: Stage, facts: Facts | None) -> str:
    """Why leaving out a pass changes nothing; empty if it may."""
    name = stage.name.removeprefix(WITHOUT)
    if facts is None or name == stage.name or name not in facts.idle:
        return ""
    return f"{name} finds nothing in this model"


def vain(dtype: str, options: Options, facts: Facts | None, accurate: Collection[str] = ()) -> str:
    """Why a precision cannot bring the limits nearer; empty if it may.

    It may save memory on any CPU; time only where the CPU multiplies in it, or where a call waits
    for weights.  `facts` are those of the first candidate, None if nobody knows any; `accurate`
    are precisions that were tried and keep the limits on accuracy.
    """
    if options.lock is not None:  # its kernels say what it was written for
        return ""
    kind = target.kind_of(options.target)
    if dtype not in precisions.of_device(kind):
        return f"there is no such precision for target kind {kind}"
    if facts is not None and facts.precision != precisions.FULL:
        return f"the model is in {facts.precision} already"
    most = options.contract.max_size
    if facts is not None and most is not None and facts.code > most:
        return f"smaller weights are not enough: {format_size(facts.code)} are not weights"
    reason = _no_faster(dtype, options, facts)
    if dtype == "int8-dynamic" and "int8" in accurate:
        # The same products, and ranges to be found in each call besides.
        reason = "no faster than int8, whose ranges are known beforehand"
    contract = options.contract
    sized = contract.max_memory is not None or contract.max_size is not None
    if reason and sized:
        return f"no smaller than {_NO_SMALLER[dtype]}" if dtype in _NO_SMALLER else ""
    return reason


def _no_faster(dtype: str, options: Options, facts: Facts | None) -> str:
    device = target.parse(options.target, options.threads)
    if device.gpu is not None:
        needed, smaller, cache = _NEEDED_OF_GPU.get(dtype), dtype in _PACKED, device.gpu.l2
        if needed is not None and needed not in device.gpu.features:
            return f"no faster on this target: {device.gpu.arch} has no {needed}"
    else:
        needed, cache = _READ.get(dtype), device.l3
        if needed is not None and needed not in device.features:
            return f"no faster on this target: {dtype} needs {needed}"
        smaller = dtype in _PACKED or dtype in slow_halves(device)
    if smaller and not _waits(facts, cache):
        return "no faster: calls do not wait for the weights"
    return ""


def slow_halves(device: Target) -> frozenset[str]:
    """The precisions of 16 bits in which a CPU multiplies no faster than in fp32."""
    return frozenset(name for name in _HALVES if device.faster(name) == 1.0)


def _waits(facts: Facts | None, cache: int) -> bool:
    """Whether weights come from memory, and each is used a few times only."""
    if facts is None:
        return False
    flops = sum(each.flops for each in facts.products)
    weights = sum(each.weights for each in facts.products)
    return weights > cache and flops <= _BOUND * weights
