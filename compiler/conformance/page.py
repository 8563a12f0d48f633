"""The page `docs/conformance.md`, made from the documents of `hybridc conformance --json`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.conformance.suite import Result, Verdict
from hybridc.compiler.conformance.summary import Summary
from hybridc.compiler.errors import InputError

_HEAD = """# Conformance

What other people's test cases say of this compiler. Made by a command from measured results; do not
edit.

```console
$ hybridc conformance --core --resume nodes.jsonl --json > core.json
$ hybridc conformance --resume nodes.jsonl --json > nodes.json
$ hybridc conformance --core --suite 'onnx-node{engine=ort}' --json > core-ort.json
$ hybridc conformance --suite onnx-models --json > models.json
$ hybridc conformance --suite torch-opinfo --json > torch.json
$ python benchmarks/architectures.py --json > architectures.json
$ python benchmarks/fuzz_models.py --count 500 --json > random.json
$ python benchmarks/conformance_page.py core.json nodes.json core-ort.json models.json torch.json \\
    architectures.json random.json -o docs/conformance.md
```

A case **passes** where every output has the shape and type that the case stores, and numbers within
its tolerance, by our own kernels alone; **fallback** is the same with another runtime's help;
**unsupported** is a refusal with a reason; **error** is any other failure; **wrong** is an answer
beyond the tolerance, unless it is nearer than the stored one to what ONNX's reference computes in
float64: that stored output has more than the tolerance of rounding in it. What draws random numbers
cannot be compared, and counts as unsupported. Models of torch (operators, modules, export examples,
whole architectures with random weights) are compared with torch itself, random models with ONNX
Runtime, and count where ONNX's reference agrees with it. Inputs of ONNX's cases that decide shapes
(axes, sizes, paddings) are compiled as constants of the case's values, as exporters write them;
everything else is known only as the model runs.
"""
_MOST_REASONS = 40


@dataclass(frozen=True)
class Document:
    """What `hybridc conformance --json` printed, read again."""

    summary: Summary
    versions: Mapping[str, str | None]
    date: str
    of_total: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Document":
        """Read one document.  Raises InputError if it is none."""
        try:
            results = tuple(map(Result.from_json, data["cases"]))
            total = int(data["total"])
            summary = Summary(str(data["suite"]), results, total, bool(data["core"]))
            return cls(summary, data["versions"], str(data["date"]), total)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a document of `hybridc conformance --json`: {error!r}") from None


def page(documents: Sequence[Document]) -> str:
    """The whole page: suites side by side, then operators and reasons of ours."""
    parts = [_HEAD, _overview(documents)]
    for document in documents:
        if "engine=" not in document.summary.suite:
            parts += [_operators(document), _reasons(document)]
    return "\n".join(parts)


def _title(document: Document) -> str:
    summary = document.summary
    return f"{summary.suite}{', core' if summary.core else ''}"


def _overview(documents: Sequence[Document]) -> str:
    rows = [("suite", "cases", *map(str, Verdict), "passed", "date", "versions")]
    for document in documents:
        summary, counts = document.summary, document.summary.counts()
        share = f"{100 * summary.passed() / max(1, len(summary.results)):.1f} %"
        cases = str(len(summary.results)) + ("" if summary.complete else f" of {document.of_total}")
        versions = ", ".join(f"{name} {version}" for name, version in document.versions.items())
        numbers = [str(counts[verdict]) for verdict in Verdict]
        rows.append((_title(document), cases, *numbers, share, document.date, versions))
    return _table(rows)


def _operators(document: Document) -> str:
    """Groups in which something does not pass, and those in which everything does."""
    rows = [("operator", "cases", *map(str, Verdict))]
    whole: list[str] = []
    for group, counts in document.summary.groups().items():
        if _good(counts) == counts.total():
            whole.append(f"{group} {counts.total()}")
        else:
            numbers = [str(counts[verdict] or "") for verdict in Verdict]
            rows.append((group, str(counts.total()), *numbers))
    sentence = (
        f"Every answer is right, with help or without, of: {', '.join(whole)}.\n" if whole else ""
    )
    return f"\n## {_title(document)}: operators\n\n{_table(rows)}\n{sentence}"


def _reasons(document: Document) -> str:
    rows = [("cases", "verdict", "reason")]
    for count, verdict, reason in document.summary.reasons()[:_MOST_REASONS]:
        rows.append((str(count), str(verdict), reason.replace("|", "\\|")))
    return f"\n## {_title(document)}: reasons\n\n{_table(rows)}"


def _good(counts: Counter[Verdict]) -> int:
    return counts[Verdict.PASS] + counts[Verdict.FALLBACK]


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body, ""])
