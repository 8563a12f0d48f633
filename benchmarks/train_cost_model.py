"""Train the pretrained cost models on the recorded sweeps, and say how well they rank.

    python benchmarks/train_cost_model.py             print the figures on held-out kernels
    python benchmarks/train_cost_model.py --save      train on all, write the models and their cards

Held out: the kernels are dealt into folds, and those of a fold are ranked by a model that learned
from the others; a kernel that was swept on two machines is held out of both.
"""

import argparse
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command_line
import numpy as np
from sweep_collection import SWEEPS

from hybridc.compiler.tuning.prediction import cost_model
from hybridc.compiler.tuning.prediction.cost_model import CostModel
from hybridc.compiler.tuning.simulation import simulate
from hybridc.compiler.tuning.simulation.simulate import Sweep

# What each model of the package learns from.
_OTHERS, _AVX2, _TWO_UNITS = SWEEPS[512, 1.0], SWEEPS[256, 2.0], SWEEPS[512, 2.0]
MODELS = {cost_model.OTHERS: (_OTHERS, _AVX2), cost_model.TWO_UNITS: (_TWO_UNITS, _AVX2)}
FOLDS = 5
# Draws of candidates whose predicted best is looked at; how many at a time; how near it has to be.
_DRAWS, _CANDIDATES, _NEAR = 200, 64, 1.05
_GOAL_TAU, _GOAL_TOP = 0.7, 0.9
# The predicted best is mostly near the best in this share of the draws.
_MOSTLY = 0.5


@dataclass(frozen=True)
class Ranking:
    """How well a kernel's points are ranked; `analytic` is τ of the analytic model."""

    kernel: Sweep
    tau: float
    analytic: float
    top: float


@dataclass(frozen=True)
class Machine:
    """What was swept on one machine, and what is to be known of it."""

    file: Path
    sweeps: tuple[Sweep, ...]
    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The machine, for people."""
        wide = any(feature.startswith("avx512") for feature in self.about["target"]["features"])
        return f"{self.about['processor']}, {'AVX-512' if wide else 'AVX2'}"


def machines(files: Sequence[Path]) -> list[Machine]:
    """What was swept on each machine."""
    return [Machine(file, simulate.load(file), simulate.about(file)) for file in files]


def held_out(sweeps: Sequence[Sweep]) -> dict[str, CostModel]:
    """For each kernel, a model that learned from kernels of the other folds."""
    names = list(dict.fromkeys(kernel.name for kernel in sweeps))
    models: dict[str, CostModel] = {}
    for fold in range(FOLDS):
        tested = set(names[fold::FOLDS])
        model = cost_model.train([s.group for s in sweeps if s.name not in tested])
        models |= dict.fromkeys(tested, model)
    return models


def ranking(kernel: Sweep, model: CostModel) -> Ranking:
    """How a model ranks a kernel."""
    predicted = model.predict(kernel.features)
    analytic = cost_model.kendall(kernel.estimates, kernel.seconds)
    return Ranking(
        kernel, cost_model.kendall(predicted, kernel.seconds), analytic, _top(kernel, predicted)
    )


def _top(kernel: Sweep, predicted: cost_model.Floats) -> float:
    """How often the predicted best of some candidates is within 5 % of their best."""
    random = np.random.default_rng(0)
    usable = np.flatnonzero(np.isfinite(kernel.seconds))
    hits = 0
    for _ in range(_DRAWS):
        drawn = random.permutation(usable)[:_CANDIDATES]
        chosen = drawn[predicted[drawn].argmin()]
        hits += kernel.seconds[chosen] <= _NEAR * kernel.seconds[drawn].min()
    return hits / _DRAWS


def table(joint: Sequence[Ranking], own: Sequence[Ranking]) -> str:
    """The figures of one machine as Markdown, by rule: of a model of all machines, and its own."""
    lines = [
        "| rule | kernels | points | τ | own τ | τ of the analytic model | best of 64 | own |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rule in [*sorted({one.kernel.rule for one in joint}), ""]:
        here = [[one for one in each if rule in ("", one.kernel.rule)] for each in (joint, own)]
        points = sum(len(one.kernel.points) for one in here[0])
        taus = [float(np.median([one.tau for one in each])) for each in here]
        known = [one.analytic for one in here[0] if not math.isnan(one.analytic)]
        analytic = f"{np.median(known):.2f}" if known else "-"
        near, near_own = (f"{_near(each):.0%}" for each in here)
        lines.append(
            f"| {rule or 'all'} | {len(here[0])} | {points} | {taus[0]:.2f} | {taus[1]:.2f} |"
            f" {analytic} | {near} | {near_own} |"
        )
    return "\n".join(lines)


def _near(rankings: Sequence[Ranking]) -> float:
    """The share of kernels whose predicted best is mostly near the best."""
    return float(np.mean([one.top >= _MOSTLY for one in rankings]))


def told(machine: Machine, joint: Sequence[Ranking], own: Sequence[Ranking]) -> str:
    """What is to be said of the ranking on one machine."""
    again, tau = machine.about["repeated"], float(np.median([one.tau for one in joint]))
    good = _near(joint)
    missed = "" if tau >= _GOAL_TAU and good >= _GOAL_TOP else " **missed**"
    return f"""{machine.name} ({machine.about["date"]}): median τ {tau:.2f} (goal {_GOAL_TAU}); on
{good:.0%} of the kernels (goal {_GOAL_TOP:.0%}) the predicted best of 64 is mostly within 5 % of
the real best.{missed} A second measurement of a point differs by {again["moved"]:.1%}, τ of the two
measurements is {again["tau"]:.2f} (medians over kernels), and the fastest point of one is within
5 % of the fastest of the other on {again["near"]:.0%} of the kernels: this is what
measuring itself reaches.

{table(joint, own)}"""


def card(model: Path, found: Sequence[Machine], figures: str) -> str:
    """What is to be known of a model."""
    size = model.stat().st_size
    swept = "\n".join(
        f"* `benchmarks/data/{each.file.name}` (SHA-256 begins"
        f" `{hashlib.sha256(each.file.read_bytes()).hexdigest()[:16]}`):"
        f" {sum(len(s.points) for s in each.sweeps)} points of {len(each.sweeps)} kernels;"
        f" {each.name}, {each.about['threads']} threads, {each.about['date']}, warm caches"
        for each in found
    )
    return f"""# The pretrained cost model

XGBoost, trained for the squared error of the logarithm of a point's time relative to its kernel's
best, with more weight for fast points and small kernels; {size / 1e6:.2f} MB of UBJSON. Made by
`benchmarks/train_cost_model.py --save` from measurements of `benchmarks/sweep.py`:

{swept}

It ranks the points of one kernel; its scores are not times. Features distinguish machines by vector
lanes, threads, and sizes relative to those of the caches. If a kernel's features lie outside those
of the training data, the rule's analytic model ranks the points instead.

## Ranking of held-out kernels

In {FOLDS} folds; a kernel is held out on all machines. *Own* is a model trained on this machine
only. *Best of 64* is the share of kernels whose predicted best of 64 points (of all points, if
there are fewer) is mostly within 5 % of the real best.

{figures}
"""


def figures(found: Sequence[Machine]) -> str:
    """How well a model of these machines ranks the held-out kernels of each."""
    models = held_out(_kernels(found))
    parts: list[str] = []
    for machine in found:
        own = held_out(machine.sweeps) if len(found) > 1 else models
        ranked = [[ranking(s, by[s.name]) for s in machine.sweeps] for by in (models, own)]
        parts.append(told(machine, *ranked))
    return "\n\n".join(parts)


def save(model: Path, found: Sequence[Machine], measured: str) -> None:
    """Train a model on all kernels of these machines; write it and its card."""
    cost_model.train([kernel.group for kernel in _kernels(found)]).save(model)
    model.with_suffix(".md").write_text(card(model, found, measured))


def _kernels(found: Sequence[Machine]) -> list[Sweep]:
    return [kernel for machine in found for kernel in machine.sweeps]


def main() -> None:
    """Print the figures; with `--save`, write the models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write the models and their cards")
    parser.add_argument("--data", type=Path, nargs="+", help="sweeps of one model that is not kept")
    options = parser.parse_args()
    if options.data:
        print(figures(machines(options.data)))
        return
    for model, files in MODELS.items():
        found = machines(files)
        measured = figures(found)
        print(f"## {model.name}\n\n{measured}\n")
        if options.save:
            save(model, found, measured)


if __name__ == "__main__":
    command_line.run(main)
