"""Compile the zoo's models of each family of architectures, and compare them with torch.

    python benchmarks/architectures.py --json > architectures.json
    python benchmarks/architectures.py BERT T5

A file of `--resume` gets each result as it comes; what it holds is not run again.  The JSON is that
of `hybridc conformance --json`, for benchmarks/conformance_page.py.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import command_line
from zoo import ZOO
from zoo_sequences import FAMILIES

from hybridc.compiler import driver, frontend
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.conformance import summary
from hybridc.compiler.conformance.comparison import Tolerance, difference
from hybridc.compiler.conformance.examiner import judged
from hybridc.compiler.conformance.record import Record
from hybridc.compiler.conformance.suite import Result, Verdict
from hybridc.compiler.runtime.session import InferenceSession

_SUITE = "architectures"
_TOLERANCE = Tolerance(1e-3, 1e-4)


def main() -> None:
    """Run the families named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="results by now")
    options = parser.parse_args()
    if unknown := set(options.families) - set(FAMILIES):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(FAMILIES)}")
    kept = Record(options.resume, _SUITE)
    names = [name for family in options.families or FAMILIES for name in FAMILIES[family]]
    run(options.families or FAMILIES, kept)
    found = summary.of(_SUITE, [kept.results[name] for name in names], len(names), core=False)
    print(json.dumps(found.to_json()) if options.json else found.text())


def run(families: Iterable[str], kept: Record) -> None:
    """Run the models that the record lacks; results are told on the way."""
    for family in families:
        for name in (name for name in FAMILIES[family] if name not in kept.results):
            start = perf_counter()
            result = judged(name, family, lambda name=name: examine(name))
            seconds = perf_counter() - start
            kept.add(replace(result, seconds=round(seconds, 3)))
            line = f"{result.verdict} {family}: {name} in {seconds:.1f} s {result.reason}"
            print(line.rstrip(), file=sys.stderr, flush=True)


def examine(name: str) -> Result:
    """Compile one model with default options; compare on inputs that the compiler never saw."""
    animal = ZOO[name]()
    options = Options(threads=1)
    model = frontend.load(animal.source, example_inputs=animal.example_inputs, fallback=True)
    outcome = driver.compile_model(model, options)
    feed = {spec.name: array for spec, array in zip(model.inputs, animal.feed, strict=True)}
    got = InferenceSession(outcome.artifact, 1).run(None, feed)
    differs = difference(got, model.reference(feed), _TOLERANCE)
    right = Verdict.FALLBACK if model.regions else Verdict.PASS
    return Result("", "", Verdict.WRONG if differs else right, differs or "")


if __name__ == "__main__":
    command_line.run(main)
