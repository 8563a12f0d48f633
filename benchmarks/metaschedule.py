"""TVM's own MetaSchedule on twenty kernels: the baseline of tuning, searched once and kept.

    python benchmarks/metaschedule.py [--kernels NAME,...] [--trials 512] [--seeds 0,1,2]

Wants a quiet machine for hours.  Each search ends with a line in benchmarks/data/metaschedule.json,
and a search that is there for this machine is not done again, so that it may be stopped and called
again.  `tuning.py` carries out the best trace of each search of its machine beside our points.

The search is `tvm.s_tir.meta_schedule.tune_tir` as it is: evolution under XGBoost, 64 trials an
iteration.  Only its builder's processes, new ones in each iteration, do not import the intrinsics
of GPUs first: that takes some 20 s of a core, and most candidates fail at TVM's limit of 30 s where
other programs run too.  It is given what our own rules are given: the function that the default
pipeline makes of an operator with what is fused to it, weights packed, not scheduled yet.
"""

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import command_line
import results
import tuning_kernels
from command_line import count
from tuning_kernels import Kernel, Matched, convolution, dense, layer_norm, products, softmax

from hybridc.compiler import settings, target
from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.log import keys

THREADS = 2
DATA = Path(__file__).parent / "data" / "metaschedule.json"
KERNELS: Sequence[Kernel] = (
    dense(128, 768, 768),
    dense(128, 3072, 768),
    dense(784, 128, 512),
    dense(49, 2048, 512),
    convolution("conv2d", 56, 64, 128, 3, 2),
    convolution("conv2d", 28, 128, 256, 3, 2),
    convolution("conv2d", 35, 48, 100, 5),
    convolution("winograd-conv2d", 56, 64, 64, 3),
    convolution("winograd-conv2d", 14, 256, 256, 3),
    convolution("depthwise-conv2d", 112, 32, 32, 3),
    convolution("depthwise-conv2d", 56, 144, 144, 3, 2),
    convolution("depthwise-conv2d", 28, 192, 192, 3),
    convolution("depthwise-conv2d", 14, 384, 384, 7),
    products(12, 128, 64, 128),
    products(12, 128, 128, 64),
    products(12, 197, 197, 64),
    softmax(1536, 128),
    softmax(2364, 197),
    layer_norm(128, 768),
    layer_norm(3136, 96),
)


@dataclass(frozen=True)
class Search:
    """One search: what it was for, what it took, and its best trace as TVM's JSON data.

    `seconds` is the time of the best candidate as TVM measured it, `measured` how many candidates
    TVM tried, `took` the seconds of the whole search; `machine` is named as in RESULTS.md.
    """

    kernel: str
    workload: str
    trials: int
    seed: int
    seconds: float
    measured: int
    took: float
    date: str
    machine: str
    tvm: str
    trace: Any


def searches() -> list[Search]:
    """Those that are kept."""
    return [Search(**entry) for entry in json.loads(DATA.read_text())] if DATA.exists() else []


def here(workload: str, trials: int) -> list[Search]:
    """Those of a kernel on this machine: what is best on another says little of this one."""
    wanted = (workload, trials, results.machine())
    return [one for one in searches() if (one.workload, one.trials, one.machine) == wanted]


def keep(every: Iterable[Search]) -> None:
    """Write them, one a line, in an order that does not depend on when each was done."""
    ordered = sorted(every, key=lambda one: (one.machine, one.kernel, one.trials, one.seed))
    lines = ",\n".join(json.dumps(asdict(one), sort_keys=True) for one in ordered)
    with replacing(DATA) as stream:
        stream.write(f"[\n{lines}\n]\n".encode())


def named(text: str | None) -> list[Kernel]:
    """The kernels of these names, all without names; InputError names those that there are."""
    wanted = text.split(",") if text else [kernel.name for kernel in KERNELS]
    if unknown := set(wanted) - {kernel.name for kernel in KERNELS}:
        known = ", ".join(kernel.name for kernel in KERNELS)
        raise InputError(f"no kernel is named {', '.join(sorted(unknown))}; known: {known}")
    return [kernel for kernel in KERNELS if kernel.name in wanted]


def main() -> None:
    """Do the searches that are not kept yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--kernels", help="these alone, with commas between")
    parser.add_argument("--trials", type=count, default=512)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    settings.set_runtime_threads(THREADS)
    kernels = named(options.kernels)
    chosen = target.parse("cpu", THREADS)
    for seed in map(int, options.seeds.split(",")):
        for kernel in kernels:
            found = tuning_kernels.matched(kernel, chosen)
            workload = keys.of_kernel(found.func).key
            if seed in {one.seed for one in here(workload, options.trials)}:
                continue
            print(f"{kernel.name}, seed {seed}", file=sys.stderr, flush=True)
            done = search(found, chosen, options.trials, seed)
            keep([*searches(), done])
            line = f"  {done.seconds * 1e6:.1f} us, {done.measured} trials in {done.took:.0f} s"
            print(line, file=sys.stderr, flush=True)


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def search(found: Matched, chosen: target.Target, trials: int, seed: int) -> Search:
    """Search by MetaSchedule as it comes; RuntimeError where no candidate ran."""
    import tvm
    from tvm.s_tir import meta_schedule

    start = time.perf_counter()
    normalized = meta_schedule.tune_context._normalize_mod  # pyright: ignore[reportPrivateUsage]
    module = normalized(found.func)
    builder: Any = meta_schedule.builder.LocalBuilder(f_build=_built)
    with tempfile.TemporaryDirectory(prefix="metaschedule-") as folder:
        database = meta_schedule.tune_tir(
            module,
            chosen.tvm,
            folder,
            max_trials_global=trials,
            seed=1 + seed,
            builder=builder,
        )
        records = list(database.get_all_tuning_records())
        best = database.query_tuning_record(module, chosen.tvm, "main")
        if best is None:
            raise RuntimeError(f"MetaSchedule found nothing that runs for {found.kernel.name}")
        trace = best.as_json()[0]
        seconds = min(map(float, best.run_secs or ()))
    return Search(
        kernel=found.kernel.name,
        workload=keys.of_kernel(found.func).key,
        trials=trials,
        seed=seed,
        seconds=seconds,
        measured=len(records),
        took=round(time.perf_counter() - start, 1),
        date=str(datetime.date.today()),
        machine=results.machine(),
        tvm=tvm.__version__,
        trace=trace,
    )


def _built(module: Any, chosen: Any, _: Any) -> Any:
    """A candidate's code, as by `default_build`, in a process of TVM's builder."""
    from tvm.driver import build
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

    return build(RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(module), target=chosen)


if __name__ == "__main__":
    command_line.run(main)
