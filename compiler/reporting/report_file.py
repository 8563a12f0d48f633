"""Measure an artifact for its page, and write that page."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hybridc.compiler import settings
from hybridc.compiler.artifact import Artifact
from hybridc.compiler.files import replacing
from hybridc.compiler.hardware import host
from hybridc.compiler.measurement import measure, profile
from hybridc.compiler.model import random_feed
from hybridc.compiler.monitoring.monitored import Monitored
from hybridc.compiler.reporting.report import Stage
from hybridc.compiler.reporting.report_charts import Measured
from hybridc.compiler.reporting.report_page import render
from hybridc.compiler.session import InferenceSession


def write(  # noqa: PLR0913 - what it takes is what the two verbs offer
    artifact: Artifact,
    path: Path,
    threads: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
    *,
    stages: Sequence[Stage] = (),
    monitored: Monitored | None = None,
    run: bool = True,
) -> None:
    """Write the page of an artifact; it is run on random inputs where `run` asks for it.

    An artifact that this host cannot run gets a page that says so.
    """
    notice = ""
    measured = None
    if run and (unfit := artifact.unfit()):
        notice = f"The artifact was not run: {unfit}."
    elif run and (lacking := artifact.lacking()):
        notice = f"The artifact was not run: this CPU lacks {', '.join(lacking)}."
    elif run:
        tell("running the artifact")
        measured = examine(artifact, threads)
    text = render(artifact, measured, stages, notice, monitored)
    with replacing(path) as stream:
        stream.write(text.encode())


def examine(artifact: Artifact, threads: int | None = None) -> Measured:
    """Time whole calls, and then each kernel."""
    count = threads or settings.requested_threads() or host.cores()
    session = InferenceSession(artifact, count)
    feed = random_feed(artifact.inputs)
    latency = measure.latency(lambda: session.run(None, feed))
    return Measured(host.cpu_model(), count, latency, profile.on_this_host(session, count))
