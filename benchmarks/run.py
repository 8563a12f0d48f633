"""Run benchmarks and write what they measured into RESULTS.md.

    python benchmarks/run.py                            everything
    python benchmarks/run.py kernels overheads          these
    python benchmarks/run.py peers --models resnet-50,bert-base --batch 8 --precision fp32
    python benchmarks/run.py tuning --part models --models resnet-18

Each benchmark is a script beside this one, which prints its section.  What is not named keeps what
it has: sections, and within the tables of `peers` and `tuning` the other rows.  Rows are written as
they come, so that nothing that was measured is lost where this is interrupted.
"""

import argparse
import ast
import datetime
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import command_line
import results
import streamed
from results import Results

from hybridc.compiler.hardware import load

HERE = Path(__file__).parent
# The tables of `peers`: precisions and batch sizes.
TABLES = (("fp32", 1), ("fp32", 8), ("bf16", 1), ("int8", 1))
# Benchmarks that print one table row by row.
_BY_ROWS = ("peers", "tuning", "contracts", "precision", "cascade")
_NOT_ENDED = "  Not all rows are of this run, which has not ended."
# Benchmarks of several sections, which they are told as their first argument, and the titles.
PARTED = {
    "tuning": {
        "models": "Whole models after tuning, beside the same without it",
        "kernels": "Kernels after few trials, beside MetaSchedule after many",
    },
    "contracts": {
        "speed": "The fastest within a limit on the cosine, beside peers",
        "ladder": "Contracts of rising difficulty, certificates measured again on other data",
        "rivals": "One limit on accuracy for hybridc and others",
    },
}
NAMES = (
    *("peers", "kernels", "bandwidth", "overheads", "log", "rebuild", "cascade", "precision"),
    *("contracts", "train_cost_model", "strategies", "tuning", "importing"),
    "disturbance",
)
_PEERS = """Median latency in ms; in brackets hybridc's time as a ratio to that peer (median of the
ratios within a round; below 1 hybridc is faster).  Of roofline: the least time that the kernels
need by their arithmetic and their traffic, as a share of the time that the model took.
"""


@dataclass(frozen=True)
class Section:
    """One part of the results: the script that makes it, with its arguments.

    `merges` where rows that were not measured now shall stay.
    """

    key: str
    script: str
    title: str
    arguments: tuple[str, ...] = ()
    about: str = ""
    merges: bool = False


def main() -> None:
    """Run the benchmarks named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    models = "peers, tuning, contracts, precision: these models alone, with commas between"
    parser.add_argument("--models", help=models)
    parser.add_argument("--batch", type=_numbers, help="peers: these batch sizes alone")
    parser.add_argument("--precision", help="peers: these precisions alone")
    parts = [part for parts in PARTED.values() for part in parts]
    parser.add_argument("--part", choices=parts, help="tuning, contracts: this part alone")
    parser.add_argument("--kernels", help="tuning: these kernels alone, with commas between")
    rivals = "contracts: the interpreter that has the rivals"
    parser.add_argument("--rivals", metavar="PYTHON", help=rivals)
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark is named {', '.join(unknown)}; known: {', '.join(NAMES)}")
    chosen = list(_chosen(options))
    if not chosen:
        known = ", ".join(f"{precision} with batch {batch}" for precision, batch in TABLES)
        parser.error(f"no table is of that precision and batch; there are {known}")
    streamed.stop_on_signals()
    try:
        for section in chosen:
            measure(section)
    except KeyboardInterrupt:
        print("interrupted; the rows that were measured stand in the results", file=sys.stderr)
        sys.exit(130)


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _chosen(options: argparse.Namespace) -> Iterator[Section]:
    for name in options.names or NAMES:
        if name in PARTED:
            yield from _parts(name, options)
            continue
        if name != "peers":
            named = ("--models", options.models) if name == "precision" and options.models else ()
            yield Section(name, name, _title(name), named, merges=bool(named))
            continue
        for precision, batch in TABLES:
            if options.precision and precision not in options.precision.split(","):
                continue
            if options.batch and batch not in options.batch:
                continue
            arguments = ["--precision", precision, "--batch", str(batch)]
            arguments += ["--models", options.models] if options.models else []
            title = f"{_title(name)}: {precision}, batch {batch}"
            yield Section(f"peers-{precision}-{batch}", name, title, tuple(arguments), _PEERS, True)


def _parts(name: str, options: argparse.Namespace) -> Iterator[Section]:
    for part, title in PARTED[name].items():
        if options.part in (None, part):
            arguments = [part]
            for option in ("models", "kernels", "rivals"):
                fits = part == option or (name == "contracts" and option == "models")
                if fits and (chosen := getattr(options, option)):
                    arguments += [f"--{option}", chosen]
            yield Section(f"{name}-{part}", name, title, tuple(arguments), merges=True)


def _title(name: str) -> str:
    """The first line of a script's docstring."""
    text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or name
    return text.split("\n", 1)[0].rstrip(".")


def measure(section: Section) -> None:
    """Run a section's script, and write what it prints: rows at once, and the whole in the end."""
    busy = load.busy_cores()
    quiet = "" if busy <= load.QUIET else f" **Not quiet: {busy:.1f} cores busy.**"
    stamp = f"`benchmarks/{section.script}.py`, {datetime.date.today()}.{quiet}"
    before = Results.read().of(results.machine()).get(section.key, "")
    found: list[str] = []
    # A process of its own: the threads of one benchmark shall not spin beside the next.
    with streamed.lines([str(HERE / f"{section.script}.py"), *section.arguments]) as printed:
        for line in printed:
            found.append(line)
            if section.script in _BY_ROWS and results.is_row(found):
                text = results.merged(before, "\n".join(found))
                _write(section, f"{stamp}{_NOT_ENDED}", text)
    text = "\n".join(found).strip()
    if section.script in _BY_ROWS:
        text = results.merged(before if section.merges else "", text)
    _write(section, stamp, text)


def _write(section: Section, stamp: str, found: str) -> None:
    about = f"{section.about}\n" if section.about else ""
    text = f"## {section.title}\n\n{stamp}\n\n{about}{found}\n"
    Results.read().write(results.machine(), section.key, text, order())


def order() -> list[str]:
    """The keys of all sections that a machine may have, as they stand in the file."""
    tables = [f"peers-{precision}-{batch}" for precision, batch in TABLES]
    parts = [f"{name}-{part}" for name, parts in PARTED.items() for part in parts]
    return [*tables, *NAMES, *parts]


if __name__ == "__main__":
    command_line.run(main)
