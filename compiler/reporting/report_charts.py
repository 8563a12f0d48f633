"""The charts of an artifact's page: kernels, memory and steps of the compilation as bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.measurement.profile import KernelTime, Profile
from hybridc.compiler.reporting import page
from hybridc.compiler.reporting.page import Element, element
from hybridc.compiler.reporting.report import Stage
from hybridc.compiler.text.units import counted, format_duration, format_point, format_size

Entries = Mapping[str, Mapping[str, Any]]  # what an artifact's report says of each kernel

_MEMORY = ("weights", "activations", "workspace", "inputs and outputs")


@dataclass(frozen=True)
class Measured:
    """What was measured of an artifact on this machine, for its page."""

    machine: str
    threads: int
    latency: Samples
    profile: Profile

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "machine": self.machine,
            "threads": self.threads,
            "latency": self.latency.to_json(),
            "profile": self.profile.to_json(),
        }


def times(measured: Measured, kernels: Entries) -> Element:
    """A bar for each kernel: its time, and how much of it the machine's limits ask for."""
    profile = measured.profile
    longest = max((kernel.seconds for kernel in profile.kernels), default=0.0) or 1.0
    rows = [
        _row(
            kernel.kernel,
            _time_bar(kernel, profile, longest),
            format_duration(kernel.seconds),
            _percent(kernel.roofline(profile.peaks)),
            _details(kernels.get(kernel.kernel, {}), kernel),
        )
        for kernel in profile.kernels
    ]
    return page.section(
        "Where the time goes",
        element(
            "p",
            f"Each kernel of one call on {measured.machine}, {measured.threads} threads; all "
            f"together {format_duration(profile.seconds)}. The limit is the roofline of this "
            f"machine: {profile.peaks.text()}. A kernel beyond 100 % found its data in a cache, or "
            "multiplies less than the plain algorithm that it is counted by.",
            class_="soft",
        ),
        _key(("bar", "time at the limit"), ("rest", "time beyond it")),
        _bars(("kernel", "", "time", "of limit"), rows),
    )


def _time_bar(kernel: KernelTime, profile: Profile, longest: float) -> Element:
    whole = kernel.seconds / longest
    share = min(1.0, kernel.roofline(profile.peaks) or 0.0)
    label = f"{format_duration(kernel.seconds)}, {_percent(share)} of the limit"
    return page.bar(label, ("bar", whole * share), ("rest", whole * (1 - share)))


def work(kernels: Entries, notice: str) -> Element:
    """A bar for each kernel's arithmetic, where nothing was run."""
    done = {name: number(entry.get("flops")) for name, entry in kernels.items()}
    most = max(done.values(), default=0.0) or 1.0
    rows = [
        _row(
            name,
            page.bar(f"{flops / 1e6:.4g} MFLOP", ("bar", flops / most)),
            f"{flops / 1e6:.4g}",
            format_size(number(kernels[name].get("bytes"))),
            _details(kernels[name], None),
        )
        for name, flops in sorted(done.items(), key=lambda item: -item[1])
    ]
    return page.section(
        "What there is to compute",
        element("p", notice or "The artifact was not run for this page.", class_="soft"),
        _bars(("kernel", "", "MFLOP", "traffic"), rows),
    )


def _bars(headers: tuple[str, str, str, str], rows: Sequence[Element]) -> Element:
    cells = [element("span", headers[0], class_="name"), element("span", headers[1])]
    cells += [element("span", text, class_="number") for text in headers[2:]]
    return element(
        "div", element("div", *cells, class_="row head"), element("ol", *rows, class_="bars")
    )


def _row(name: str, drawing: Element, first: str, second: str, more: Element | None) -> Element:
    row = (
        element("span", element("code", name), class_="name"),
        drawing,
        element("span", first, class_="number"),
        element("span", second, class_="number"),
    )
    if more is None:
        return element("li", element("div", *row, class_="row"))
    return element(
        "li", element("details", element("summary", element("div", *row, class_="row")), more)
    )


def _details(entry: Mapping[str, Any], kernel: KernelTime | None) -> Element:
    """What is known of a kernel beside its bar, and why other rules did not take it."""
    point = format_point(mapping(entry.get("point")))
    facts = [f"rule {entry.get('rule', '-')}", f"point {point or '-'}"]
    flops, moved = number(entry.get("flops")), number(entry.get("bytes"))
    facts.append(f"{flops / 1e6:.4g} MFLOP and {format_size(moved)} a call")
    if kernel:
        facts.append(f"{counted(kernel.calls, 'call')}, {kernel.achieved / 1e9:.1f} GFLOP/s")
    refused = mapping(entry.get("refused")).items()
    return element(
        "div",
        element("p", "; ".join(facts)),
        *(element("p", f"not {rule}: because {why}", class_="soft") for rule, why in refused),
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def memory(counted: object) -> Element | None:
    """What a call's memory is for, as one bar; None if nothing was counted."""
    told = {name: number(size) for name, size in mapping(counted).items()}
    peak = told.get("peak", 0.0)
    if not peak:
        return None
    told["inputs and outputs"] = told.get("inputs", 0.0) + told.get("outputs", 0.0)
    sizes = [told.get(name, 0.0) for name in _MEMORY]
    label = ", ".join(f"{n} {format_size(s)}" for n, s in zip(_MEMORY, sizes, strict=True))
    parts = [(f"f{index}", size / peak) for index, size in enumerate(sizes)]
    words = [f"{n} {format_size(s)}" for n, s in zip(_MEMORY, sizes, strict=True)]
    return page.section(
        "Memory",
        element("div", page.bar(label, *parts), class_="stack"),
        _key(*((f"f{index}", word) for index, word in enumerate(words))),
        element(
            "p",
            f"At most {format_size(peak)} in a call. Intermediate tensors share storage; without "
            f"sharing they would take {format_size(told.get('unshared', 0.0))}.",
            class_="soft",
        ),
    )


def _key(*entries: tuple[str, str]) -> Element:
    items = [element("li", page.swatch(kind), word) for kind, word in entries]
    return element("ul", *items, class_="key")


def steps(stages: Sequence[Stage]) -> Element:
    """A bar for each step of the compilation, in its order."""
    longest = max((stage.seconds for stage in stages), default=0.0) or 1.0
    total = sum(stage.seconds for stage in stages)
    rows = [
        _row(
            stage.name,
            page.bar(format_duration(stage.seconds), ("bar", stage.seconds / longest)),
            format_duration(stage.seconds),
            f"{stage.seconds / total:.0%}" if total else "-",
            None,
        )
        for stage in stages
    ]
    return page.section(
        "Passes and other steps of the compilation",
        element("p", f"{format_duration(total)} in all.", class_="soft"),
        _bars(("step", "", "time", "share"), rows),
    )


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: an artifact's report may hold anything."""
    return value if isinstance(value, Mapping) else {}


def number(value: object) -> float:
    """The value if it is a positive number that a float can hold, else 0."""
    return float(value) if isinstance(value, int | float) and 0 < value < 1e300 else 0.0
