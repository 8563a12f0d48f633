"""Random models, compiled and compared with ONNX Runtime without its optimisations.

    python benchmarks/fuzz_models.py --count 500 --seed 0 --output found
    python benchmarks/fuzz_models.py --count 100 --generator nnsmith --interpreter fuzz/bin/python

Models are of our own generator, or of NNSmith's, which an interpreter of its own may have
(`pip install 'hybridc[fuzz]'`).  A model counts where ONNX's own reference agrees with ONNX
Runtime; NNSmith's where torch, which they were exported from, does.  What fails is reduced to the
smallest model that fails the same way, and written with a line that shows it again.  A file of
`--resume` gets each result as it comes; what it holds is not run again.  The JSON is that of
`hybridc conformance --json`, for benchmarks/conformance_page.py.

In a lower precision, or a pair (`--dtype bf16`, `fp16+int4-weights`), answers are held to what
rounding explains (see rounded_reference.py), and models without a product that can be lowered are
unsupported.  With `--target avx2`, or TVM JSON that names a CPU, code is that of an older CPU,
which this one runs.
"""

import argparse
import itertools
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import onnx
import onnxruntime
import random_operators
import rounded_reference
from command_line import count
from onnx.reference import ReferenceEvaluator

from hybridc.compiler import driver
from hybridc.compiler.configuration import plans
from hybridc.compiler.conformance import summary
from hybridc.compiler.conformance.record import Record
from hybridc.compiler.conformance.suite import Result, Verdict
from hybridc.compiler.debugging.reduction import Budget, Reduction
from hybridc.compiler.errors import HybridcError, InputError, ModelError
from hybridc.compiler.model import TensorSpec, random_feed
from hybridc.compiler.orchestration.precisions import CALIBRATED, FULL, PAIRS
from hybridc.compiler.runtime.session import InferenceSession

Feed = Mapping[str, Any]
_RUNS = 200  # of a reduction
_SAMPLES = 4  # half of them give ranges; of a single one, random inputs would
# How a precision is refused that finds nothing to lower, or of a pair only one does.
_NOTHING = ("changes nothing in this model", "is no other than")
_BATCH = 25  # models of NNSmith's that are made at a time
_DTYPES = (FULL, *rounded_reference.ROUNDINGS, *PAIRS)


@dataclass(frozen=True)
class Drawn:
    """A random model, its inputs, and what another implementation makes of them, if it is known."""

    name: str
    proto: Any
    feed: Feed
    outputs: Sequence[Any] | None = None


@dataclass(frozen=True)
class How:
    """What models are compiled for: a precision, and a CPU whose code this one runs."""

    dtype: str = FULL
    target: str = "cpu"

    @property
    def others(self) -> Mapping[str, str]:
        """What is not as by default, by the names of the command line's options."""
        default = How()
        named = asdict(self).items()
        return {name: value for name, value in named if value != getattr(default, name)}


def verdict(
    proto: Any, feed: Feed, second: Sequence[Any] | None = None, how: How = How()
) -> tuple[str, str]:
    """What becomes of a model: `pass`, `unstable`, `unsupported`, `error` or `wrong`, and why.

    `second` is another opinion beside ONNX Runtime's, by default that of ONNX's reference.
    """
    wanted = _runtime(proto, feed)
    other = _reference(proto, feed) if second is None and wanted is not None else second
    if wanted is None or other is None or _differ(wanted, other):
        return "unstable", "ONNX Runtime and another implementation do not agree"
    try:
        outcome = driver.compile_source(proto, _settings(feed, how))
        got = InferenceSession(outcome.artifact, 1).run(None, feed)
    except ModelError as error:
        return "unsupported", str(error)
    except HybridcError as error:
        nothing = how.dtype != FULL and any(said in str(error) for said in _NOTHING)
        return "unsupported" if nothing else "error", str(error)
    if how.dtype == FULL:
        differs = _differ(wanted, got)
    else:
        rounded = rounded_reference.run(proto, feed, how.dtype)
        differs = rounded_reference.unexplained(wanted, rounded, got, how.dtype)
    return ("wrong", differs) if differs else ("pass", "")


def _settings(feed: Feed, how: How) -> plans.Options:
    data = [feed] * _SAMPLES if how.dtype in CALIBRATED else None
    return plans.Options(
        verify="off", threads=1, dtype=how.dtype, target=how.target, calibration=data
    )


def _runtime(proto: Any, feed: Feed) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
        return session.run(None, dict(feed))
    except Exception:  # no kernel for a type
        return None


def _reference(proto: Any, feed: Feed) -> Any:
    try:
        with np.errstate(all="ignore"):
            return ReferenceEvaluator(proto).run(None, dict(feed))
    except Exception:  # of many kinds; without a second opinion a model does not count
        return None


def _differ(wanted: Any, got: Any) -> str:
    """How the outputs differ, or nothing."""
    for index, (right, value) in enumerate(zip(wanted, got, strict=True)):
        if right.shape != value.shape or right.dtype != value.dtype:
            return f"output {index}: {value.dtype}{value.shape}, not {right.dtype}{right.shape}"
        if right.dtype.kind != "f":
            if not np.array_equal(right, value):
                return f"output {index}: integers or truths differ"
            continue
        largest = float(np.abs(right).max(initial=0))
        if not np.isfinite(largest):
            return f"output {index}: not finite"
        # Of float16, four units in the last place: NNSmith's models have such.
        near = 4 * float(np.finfo(right.dtype).eps) if right.dtype == np.float16 else 1e-3
        if not np.allclose(right, value, near, near / 10 * max(1.0, largest)):
            return f"output {index}: off by {float(np.abs(right - value).max()):.3g}"
    return ""


def _random_feed(proto: Any) -> Feed:
    held = {tensor.name for tensor in proto.graph.initializer}
    specs = [
        TensorSpec(
            value.name,
            tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
            str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
        )
        for value in proto.graph.input
        if value.name not in held
    ]
    return random_feed(tuple(specs))


def reduced(proto: Any, kind: str, how: How) -> Any:
    """The smallest model found that fails alike, on random inputs; the model where none does."""

    def fails(candidate: Any) -> bool:
        return verdict(candidate, _random_feed(candidate), how=how)[0] == kind

    whole = onnx.shape_inference.infer_shapes(proto)
    if not fails(whole):
        return proto
    return Reduction(whole, fails, lambda _: None, Budget(_RUNS)).run()


def main() -> int:
    """Run; the exit code is 1 where something failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=count, default=500, help="models that count")
    parser.add_argument("--seed", type=int, default=0, help="of the first; each has the next")
    parser.add_argument("--nodes", type=count, default=10, help="operators of each")
    parser.add_argument("--generator", choices=("own", "nnsmith"), default="own")
    parser.add_argument("--interpreter", default=sys.executable, help="a Python with NNSmith")
    parser.add_argument("--dtype", choices=_DTYPES, default=FULL)
    parser.add_argument("--target", default="cpu", help="a CPU whose code this one runs")
    parser.add_argument("--output", type=Path, help="a folder for what fails, reduced")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="results by now")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    own = options.generator == "own"
    settings = f"nodes={options.nodes}" if own else f"generator=nnsmith,nodes={options.nodes}"
    how = How(options.dtype, options.target)
    settings += "".join(f",{name}={value}" for name, value in how.others.items())
    kept = Record(options.resume, f"random-models{{{settings}}}")
    with tempfile.TemporaryDirectory(prefix="hybridc-") as folder:
        drawn = (
            _own(options.seed, options.nodes)
            if own
            else _by_nnsmith(options.interpreter, options.seed, options.nodes, Path(folder))
        )
        results = list(islice(_results(drawn, kept, how, options.output), options.count))
    found = summary.of(kept.suite, results, options.count, core=False)
    sys.stdout.write(f"{json.dumps(found.to_json()) if options.json else found.text()}\n")
    return 0 if found.passed() == options.count else 1


def _own(seed: int, nodes: int) -> Iterator[Drawn]:
    for number in itertools.count(seed):
        try:
            proto, feed = random_operators.model(number, nodes)
        except onnx.shape_inference.InferenceError:
            continue  # ONNX's reference gives another shape than ONNX infers
        yield Drawn(f"seed {number}", proto, feed)


def _by_nnsmith(interpreter: str, seed: int, nodes: int, folder: Path) -> Iterator[Drawn]:
    """Models that another interpreter writes, some at a time."""
    script = Path(__file__).with_name("nnsmith_models.py")
    for first in itertools.count(seed, _BATCH):
        options = ("--first", first, "--count", _BATCH, "--nodes", nodes, "--output", folder)
        try:
            done = subprocess.run([interpreter, script, *map(str, options)], check=False)
        except OSError as error:
            raise InputError(f"{interpreter} cannot be run: {error.strerror}") from None
        if done.returncode:
            raise InputError(f"{interpreter} cannot run NNSmith: pip install 'hybridc[fuzz]' there")
        for number in range(first, first + _BATCH):
            path = folder / f"{number}.onnx"
            if path.exists():
                yield _read(path)


def _read(path: Path) -> Drawn:
    """A model of NNSmith's with its inputs, and torch's outputs in the model's order."""
    proto = onnx.load(path)
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as held:
        feed = {value.name: held[f"input {value.name}"] for value in proto.graph.input}
        outputs = [held[f"output {value.name}"] for value in proto.graph.output]
    return Drawn(f"seed {path.stem}", proto, feed, outputs)


def _results(
    drawn: Iterator[Drawn], kept: Record, how: How, output: Path | None
) -> Iterator[Result]:
    """What becomes of one model after the other; those that do not count are left out."""
    for each in drawn:
        if each.name not in kept.results:
            start = time.perf_counter()
            kind, reason = verdict(each.proto, each.feed, each.outputs, how)
            if kind == "unstable":
                continue
            seconds = round(time.perf_counter() - start, 3)
            kept.add(Result(each.name, "random", Verdict(kind), reason, seconds=seconds))
            if kind != "pass":
                sys.stderr.write(f"{each.name}: {kind}: {reason[:200]}\n")
                if output:
                    number = each.name.split()[-1]
                    _write(each.proto, kind, output / f"{kind}-{number}.onnx", how)
        yield kept.results[each.name]


def _write(proto: Any, kind: str, path: Path, how: How) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = reduced(proto, kind, how)
    onnx.save(small, path)
    operators = ", ".join(node.op_type for node in small.graph.node)
    again = [f"--{name}={value}" for name, value in how.others.items()]
    command = shlex.join(["hybridc", "compile", str(path), *again, "--verify", "each"])
    sys.stderr.write(f"  {path} ({operators}): {command}\n")


if __name__ == "__main__":
    command_line.run(main)
