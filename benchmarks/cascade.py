"""What a cascade costs beyond the passes, builds and measurements of its stages."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import command_line
import markdown

from hybridc.compiler import driver
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.log import access
from hybridc.compiler.orchestration.attempt import Outcome
from hybridc.compiler.orchestration.steering import Steering

_MOST = 0.05  # the share that control may add
_STRATEGIES = ("cascade", "fusion", "adaptive", "hierarchical")
# Nothing keeps this, so that every stage is tried.
_HARD = Contract("1us", min_accuracy={"cosine": 0.9})


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile by each strategy, and set the time of all stages beside that of the whole call."""
    asked = command_line.model_and_rounds(__doc__, arguments)
    markdown.show(_table(asked.model, asked.rounds))


def _table(model: Path, rounds: int) -> Iterator[str]:
    parts = "passes, builds, measurements, s"
    yield markdown.head(("strategy", "stages tried", parts, "control, s", "share"))
    with tempfile.TemporaryDirectory() as folder:
        for strategy in _STRATEGIES:
            log = str(Path(folder) / "log.sqlite")
            access.open_log(log).close()
            yield markdown.row(
                _row(strategy, [_compile(model, strategy, log) for _ in range(rounds)])
            )
    counted = "control: keys, kept results, decisions, predictions, reports"
    yield f"* {model.stem}; {counted}.  Goal: at most {_MOST:.0%}."


def _compile(model: Path, strategy: str, log: str) -> tuple[int, float, float]:
    """The stages that were tried, and the seconds of their parts and of the rest of the call."""
    steering = Steering(strategy, resume=True, predict=True)
    options = Options(contract=_HARD, steering=steering, log=log)
    start = time.perf_counter()
    outcome: Outcome = driver.compile_source(model, options)
    whole = time.perf_counter() - start
    parts = sum(stage.seconds for stage in outcome.report.stages)
    tried = sum(each.measured is not None for each in outcome.report.decisions)
    return tried, parts, whole - parts


def _row(strategy: str, found: list[tuple[int, float, float]]) -> tuple[str, ...]:
    parts, rest = (median(each[i] for each in found) for i in (1, 2))
    share = rest / parts
    cell = markdown.judged(f"{share:.1%}", share <= _MOST)
    return strategy, str(found[0][0]), f"{parts:.2f}", f"{rest:.2f}", cell


if __name__ == "__main__":
    command_line.run(main)
