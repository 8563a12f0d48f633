"""Measure an artifact for its report, and write that report as a page or as text."""

import time
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path

from hybridc.compiler import settings
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.hardware import host
from hybridc.compiler.measurement import measure, profile
from hybridc.compiler.measurement.conditions import Watch
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.model import random_feed
from hybridc.compiler.monitoring.monitored import Monitored
from hybridc.compiler.reporting import page_text
from hybridc.compiler.reporting.report import Stage
from hybridc.compiler.reporting.report_charts import Measured
from hybridc.compiler.reporting.report_page import parts, render
from hybridc.compiler.runtime.session import InferenceSession


def is_page(path: Path) -> bool:
    """Whether a report of that name is a page of HTML, and not plain text."""
    return path.suffix.lower() in {".html", ".htm"}


def write(  # noqa: PLR0913 - what it takes is what the two verbs offer
    artifact: Artifact,
    path: Path,
    threads: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
    *,
    stages: Sequence[Stage] = (),
    monitored: Monitored | None = None,
    run: bool = True,
    left: float | None = None,
) -> Measured | None:
    """Write the report of an artifact, a page where `is_page` says so, and else plain text.

    It is run on random inputs where `run` asks for it.
    An artifact that this host cannot run gets a report that says so, and so does one that cannot be
    measured in the seconds of a budget that are `left`.  Returns what was measured.
    """
    notice = ""
    measured = None
    if run and (unfit := artifact.unfit()):
        notice = f"The artifact was not run: {unfit}."
    elif run and (lacking := artifact.lacking()):
        notice = f"The artifact was not run: this CPU lacks {', '.join(lacking)}."
    elif run:
        tell("running the artifact")
        measured = examine(artifact, threads, left)
        notice = "" if measured else "The artifact was not measured: the budget is used up."
    told = artifact, measured, stages, notice, monitored
    text = render(*told) if is_page(path) else page_text.text(parts(*told))
    with replacing(path) as stream:
        stream.write(text.encode())
    return measured


def examine(
    artifact: Artifact, threads: int | None = None, left: float | None = None
) -> Measured | None:
    """Time whole calls, and then each kernel; None if the seconds that are `left` end before."""
    if left == 0.0:
        return None
    end = inf if left is None else time.monotonic() + left
    count = threads or settings.requested_threads() or host.cores()
    session = InferenceSession(artifact, count)
    feed = random_feed(artifact.inputs)
    watch = Watch(count)
    latency = measure.latency(lambda: session.run(None, feed), longest=end - time.monotonic())
    if time.monotonic() + profile.WARMUP + profile.CALLS * latency.median > end:
        return None
    kernels = profile.on_this_host(session, count)
    latency = Samples(latency.seconds, watch.conditions())
    return Measured(host.cpu_model(), count, latency, kernels)
