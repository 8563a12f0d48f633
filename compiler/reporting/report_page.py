"""The report of an artifact as a page: what it is, what it promises, and where its time goes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hybridc.compiler import pipeline
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.measurement.conditions import Conditions
from hybridc.compiler.model import OpaqueSpec, TensorSpec
from hybridc.compiler.monitoring.monitored import Monitored
from hybridc.compiler.reporting import page
from hybridc.compiler.reporting import report_charts as charts
from hybridc.compiler.reporting.page import Element, element
from hybridc.compiler.reporting.report import Stage
from hybridc.compiler.reporting.report_charts import Measured, mapping, number
from hybridc.compiler.reporting.report_decisions import contributions, decisions
from hybridc.compiler.reporting.report_monitor import monitor
from hybridc.compiler.text.units import format_duration, format_rate, format_size

# Between two measurements of one artifact on one quiet machine lies less than this factor.
_FAR = 1.25
_INFINITE = ("inf", "-inf")  # how `Estimate.to_json` writes infinities


def render(
    artifact: Artifact,
    measured: Measured | None = None,
    stages: Sequence[Stage] = (),
    notice: str = "",
    monitored: Monitored | None = None,
) -> str:
    """The page of an artifact (see `parts`)."""
    found = parts(artifact, measured, stages, notice, monitored)
    return page.document(f"{artifact.name} - hybridc", *found)


def parts(
    artifact: Artifact,
    measured: Measured | None = None,
    stages: Sequence[Stage] = (),
    notice: str = "",
    monitored: Monitored | None = None,
) -> tuple[page.Child, ...]:
    """What the page holds; without `measured` what is stored in the artifact alone.

    `stages` are the steps of the compilation and `monitored` is what a monitor saw meanwhile, which
    artifacts do not keep; `notice` says why something is missing.
    """
    kernels = _kernels(artifact)
    chart = charts.times(measured, kernels) if measured else charts.work(kernels, notice)
    return (
        element("h1", artifact.name),
        element("p", _subtitle(artifact), class_="soft"),
        _tiles(artifact, measured),
        _doubt(measured),
        _then(artifact, measured),
        chart,
        _certificate(artifact),
        decisions(artifact.report.get("decisions"), mapping(artifact.certificate.get("contract"))),
        contributions(artifact.report),
        _tensors(artifact),
        _regions(artifact),
        charts.memory(artifact.report.get("memory")),
        charts.steps(stages) if stages else _passes(artifact),
        monitor(monitored),
        _notes(artifact),
        _versions(artifact, measured),
    )


def _kernels(artifact: Artifact) -> dict[str, Mapping[str, Any]]:
    """The records of the kernels by name; an artifact's report may hold anything."""
    found = artifact.report.get("kernels")
    entries = [e for e in found if isinstance(e, Mapping)] if isinstance(found, list) else []
    return {str(entry.get("kernel")): entry for entry in entries}


def _subtitle(artifact: Artifact) -> str:
    target = artifact.target
    return f"compiled for {target.get('cpu')}, {target.get('threads')} threads"


def _tiles(artifact: Artifact, measured: Measured | None) -> Element:
    memory = mapping(artifact.report.get("memory"))
    weights = sum(array.nbytes for array in artifact.stored().values())
    tiles: list[tuple[str, str]] = []
    if measured:
        tiles.append((format_duration(measured.latency.median), "a call, median, measured now"))
        share = measured.profile.limit / measured.latency.median
        tiles.append((f"{share:.0%}", "of what the machine's limits allow"))
    tiles.append((str(len(_kernels(artifact))), "kernels"))
    if peak := number(memory.get("peak")):
        tiles.append((format_size(peak), "peak memory"))
    tiles.append((format_size(weights), "weights"))
    return element(
        "div",
        *(
            element("div", element("b", value), element("span", what, class_="soft"))
            for value, what in tiles
        ),
        class_="tiles",
    )


def _doubt(measured: Measured | None) -> Element | None:
    """What disturbed the measurement that was made for the page."""
    if measured is None or not measured.latency.disturbed:
        return None
    told = f"During this measurement {measured.latency.disturbed}: times may be too long."
    return element("p", told, class_="bad")


def _then(artifact: Artifact, measured: Measured | None) -> Element | None:
    """The time in the certificate, where what was measured for the page is far from it."""
    then = number(mapping(artifact.certificate.get("latency")).get("median_ms")) / 1e3
    if measured is None or not then:
        return None
    now = measured.latency.median
    if max(now / then, then / now) < _FAR:
        return None
    told = f"When it was certified, a call took {format_duration(then)}, median: another machine, "
    return element("p", f"{told}or the same one in another state.", class_="soft")


def _certificate(artifact: Artifact) -> Element:
    given = artifact.certificate
    parts: list[Element | None] = [element("p", f"Measured on {given.get('data', 'nothing')}.")]
    if "kept" in given:
        word, kind = ("kept", "good") if given["kept"] is True else ("not kept", "bad")
        promised = mapping(given.get("contract"))
        told = "; ".join(f"{name} {_limit(name, value)}" for name, value in _limits(promised))
        parts.append(element("p", element("b", f"Contract {word}", class_=kind), f": {told}"))
        broken = given.get("broken")
        parts += [element("p", str(b), class_="bad") for b in broken or ()]
        parts.append(_measured(mapping(given.get("measured"))))
    disturbed = _disturbed(given)
    if disturbed and not any(disturbed in str(each) for each in given.get("broken") or ()):
        parts.append(element("p", f"While calls were timed, {disturbed}.", class_="bad"))
    agreement = given.get("agreement")
    rows = [mapping(entry) for entry in agreement] if isinstance(agreement, list) else []
    if rows:
        columns = ("output", "max_abs", "cosine", "rtol", "atol")
        cells = [[_plain(row.get(column, "-")) for column in columns] for row in rows]
        headers = ("output", "max. abs. error", "cosine", "rtol", "atol")
        parts.append(page.table(headers, cells))
    else:
        parts.append(element("p", "Its answers were not compared with a reference."))
    return page.section("Certificate", *parts)


def _measured(told: Mapping[str, Any]) -> Element | None:
    """What was measured, with the bounds that a limit has to clear; None if nothing was."""
    units = {"latency": format_duration, "throughput": format_rate}
    counted = {"memory": "peak memory", "size": "artifact size"}
    rows = [(name, *_bounds(told[name], show)) for name, show in units.items() if name in told]
    rows += [
        (word, format_size(number(told[name])), "-", "-")
        for name, word in counted.items()
        if name in told
    ]
    rows += [
        (f"{kind} {name}", *_bounds(each, "{:.6g}".format))
        for kind in ("accuracy", "drop")
        for name, each in mapping(told.get(kind)).items()
    ]
    return page.table(("", "measured", "at least", "at most"), rows) if rows else None


def _bounds(found: object, show: Callable[[float], str]) -> tuple[str, str, str]:
    """An estimate's value, and between which bounds it lies at 95 %, each one-sided."""
    value, low, high = (mapping(found).get(name) for name in ("value", "low", "high"))
    told = [show(float(x)) if isinstance(x, int | float) else "-" for x in (value, low, high)]
    return (str(value) if value in _INFINITE else told[0]), told[1], told[2]


def _disturbed(certificate: Mapping[str, Any]) -> str:
    """What the machine did beside the calls that were timed, where that was too much."""
    told = mapping(mapping(certificate.get("latency")).get("conditions"))
    try:
        return Conditions.of_json(told).text()
    except (KeyError, TypeError, ValueError):
        return ""


def _limits(promised: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The limits by name, with the percentile where that of the latency is not the median."""
    percentile = promised.get("latency_percentile")
    found = {k: v for k, v in promised.items() if k != "latency_percentile"}
    if percentile is None or "max_latency" not in found:
        return list(found.items())
    latency = _limit("max_latency", found.pop("max_latency"))
    return [(f"p{number(percentile):g} latency", f"at most {latency}"), *found.items()]


def _limit(name: str, value: object) -> str:
    """A limit of the contract with its unit."""
    units = {
        "max_latency": format_duration,
        "max_memory": format_size,
        "max_size": format_size,
    }
    return units[name](number(value)) if name in units else _plain(value)


def _plain(value: object) -> str:
    match value:
        case float():
            return f"{value:.6g}"
        case Mapping():
            return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
        case _:
            return str(value)


def _tensors(artifact: Artifact) -> Element:
    sides = (("input", artifact.inputs), ("output", artifact.outputs))
    rows = [(side, spec.name, *_kind(spec)) for side, specs in sides for spec in specs]
    return page.section("Inputs and outputs", page.table(("", "name", "dtype", "shape"), rows))


def _kind(spec: TensorSpec) -> tuple[str, str]:
    """The type and the sizes of an input or output."""
    if not isinstance(spec, OpaqueSpec):
        return spec.dtype, " x ".join(map(str, spec.shape)) or "scalar"
    sizes = ["?" if size is None else str(size) for size in spec.sizes or ()]
    return spec.type, " x ".join(sizes) or "-"


def _regions(artifact: Artifact) -> Element | None:
    if not artifact.regions:
        return None
    rows = [
        (
            region.name,
            ", ".join(f"{n} x{c}" if c > 1 else n for n, c in region.operators.items()),
            ", ".join(spec.describe() for spec in region.inputs),
            ", ".join(spec.describe() for spec in region.outputs),
        )
        for region in artifact.regions
    ]
    return page.section(
        "Regions computed by ONNX Runtime",
        page.table(("region", "operators", "inputs", "outputs"), rows),
    )


def _passes(artifact: Artifact) -> Element:
    items = [element("li", element("code", text)) for text in pipeline.split(artifact.pipeline)]
    return page.section("Passes, in order", element("ol", *items))


def _notes(artifact: Artifact) -> Element | None:
    notes = artifact.report.get("notes")
    if not isinstance(notes, list) or not notes:
        return None
    return page.section("Notes", *(element("p", str(note)) for note in notes))


def _versions(artifact: Artifact, measured: Measured | None) -> Element:
    rows: list[tuple[str, str]] = [(n, str(v)) for n, v in artifact.toolchain.items()]
    rows.append(("needs", " ".join(map(str, artifact.target.get("features", ())))))
    machine = mapping(artifact.target.get("machine"))
    if machine:
        known = "measured" if machine.get("measured") is True else "defaults"
        rows.append(
            (f"machine ({known})", _plain({k: v for k, v in machine.items() if k != "measured"}))
        )
    if measured:
        rows.append(("run on", f"{measured.machine}, {measured.threads} threads"))
    return page.section("Versions and target", page.table(("", ""), rows))
