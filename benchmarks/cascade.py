"""What a cascade costs beyond the passes, builds and measurements of its stages."""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from hybridc.compiler import driver
from hybridc.compiler.attempt import Outcome
from hybridc.compiler.contract import Contract
from hybridc.compiler.plans import Options
from hybridc.compiler.steering import Steering

_MOST = 0.05  # the share that control may add
_STRATEGIES = ("cascade", "fusion", "adaptive", "hierarchical")
# Nothing keeps this, so that every stage is tried.
_HARD = Contract("1us", min_accuracy={"cosine": 0.9})


def main() -> None:
    """Compile by each strategy, and set the time of all stages beside that of the whole call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="an .onnx file; ResNet-50 if not set")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    model = given.model or _resnet50()
    print("| strategy | stages tried | passes, builds, measurements, s | control, s | share |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for strategy in _STRATEGIES:
            log = str(Path(folder) / "log.sqlite")
            found = [_compile(model, strategy, log) for _ in range(given.rounds)]
            print(_row(strategy, found))
    print(f"\n* {model.stem}; control: keys, kept results, decisions, predictions, reports.")


def _resnet50() -> Path:
    import models  # imports torch

    return models.onnx_file("resnet-50")


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


def _row(strategy: str, found: list[tuple[int, float, float]]) -> str:
    parts, rest = (median(each[i] for each in found) for i in (1, 2))
    share = rest / parts
    missed = f" **missed** (≤ {_MOST:.0%})" if share > _MOST else ""
    return f"| {strategy} | {found[0][0]} | {parts:.2f} | {rest:.2f} | {share:.1%}{missed} |"


if __name__ == "__main__":
    main()
