"""Every strategy on the recorded sweep: trials until it comes within 2 % of the space's best.

    python benchmarks/strategies.py [--seeds 20] [--trials 64] [--strategies random+tpe]

Needs no quiet machine, since nothing is measured, and some minutes of a core.  The default is the
baseline that a tuning measures in any case: trials are counted beyond it, for all strategies alike,
on the kernels whose default is not within 2 % already.  Each strategy is replayed once and kept in
out/strategies.  `metaschedule` has nothing to search here but what `evolutionary` searches: its own
spaces are not recorded.  Writes out/strategies.png and out/strategies.html, and prints the section
of RESULTS.md.
"""

import argparse
import base64
import hashlib
import html
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import train_cost_model
from command_line import count
from sweep_collection import SWEEPS

from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.tuning import strategies
from hybridc.compiler.tuning.prediction import cost_model, posterior
from hybridc.compiler.tuning.prediction.cost_model import CostModel, Floats
from hybridc.compiler.tuning.simulation import simulate
from hybridc.compiler.tuning.simulation.simulate import Sweep

# Spaces below this size are searched whole in a round or two: they tell nothing of strategies.
_FEWEST_POINTS = 40
# The learned search: `evolutionary` with a model that knows nothing before, or other kernels.
COLD, PRETRAINED, FIXED = "evolutionary, cold model", "evolutionary, pretrained", "pretrained alone"
LEARNED = (COLD, PRETRAINED, FIXED)
OUT = Path("out")


@dataclass(frozen=True)
class Result:
    """One strategy on all kernels, with all seeds.

    `needed` `[kernels, seeds]` are the trials until it came within 2 %, infinite where it did not;
    `curves` `[kernels, seeds, 1 + trials]` begin with the default.
    """

    name: str
    needed: Floats
    curves: Floats
    seconds: float

    @property
    def median(self) -> float:
        """Median over kernels of the mean over seeds; searches that failed count as all trials."""
        most = self.curves.shape[2] - 1
        return float(np.median(np.minimum(self.needed, most).mean(axis=1)))


def run(
    name: str, sweeps: Sequence[Sweep], models: Mapping[str, CostModel], seeds: int, trials: int
) -> Result:
    """Replay one strategy on every kernel, with every seed."""
    start = time.process_time()
    needed = np.zeros((len(sweeps), seeds))
    curves = np.zeros((len(sweeps), seeds, trials + 1))
    for i, kernel in enumerate(sweeps):
        for seed in range(seeds):
            history = _search(name, kernel, models, seed, trials)
            found = simulate.trials_to(history, kernel)
            needed[i, seed] = math.inf if found is None else found
            curves[i, seed] = simulate.curve(history, kernel, trials)
    return Result(name, needed, curves, (time.process_time() - start) / (len(sweeps) * seeds))


def kept(  # noqa: PLR0913, PLR0917 - what decides the result
    name: str,
    digest: str,
    sweeps: Sequence[Sweep],
    models: Callable[[], Mapping[str, CostModel]],
    seeds: int,
    trials: int,
) -> Result:
    """As `run`; what was replayed of the same data is read from a file.

    `models` gives the models of `run`: they are trained where somebody needs them.
    """
    slug = name.replace(", ", "-").replace(" ", "-")
    file = OUT / "strategies" / f"{slug}-{digest}-{seeds}-{trials}.npz"
    if not file.exists():
        one = run(name, sweeps, models() if name in LEARNED else {}, seeds, trials)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as handle:
            np.savez(handle, needed=one.needed, curves=one.curves, seconds=one.seconds)
    with np.load(file, allow_pickle=False) as data:
        return Result(name, data["needed"], data["curves"], float(data["seconds"]))


def _digest(data: Path) -> str:
    """Of the files that decide what a replay comes to: what others gave is not taken for it."""
    searches = Path(strategies.__file__).parents[1] / "autotune"
    replayed = (__file__, simulate.__file__, posterior.__file__, cost_model.__file__)
    code = [*map(Path, replayed), *sorted(searches.glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in (data, *code))).hexdigest()[:12]


def _search(
    name: str, kernel: Sweep, models: Mapping[str, CostModel], seed: int, trials: int
) -> list[Any]:
    plain = name if name not in LEARNED else "evolutionary"
    strategy = replace(strategies.catalogue().create(plain), seed=seed)
    model = models[kernel.name] if name in (PRETRAINED, FIXED) else None
    learn = name in (COLD, PRETRAINED)
    expected = None if model is None else model.predict(kernel.features)
    return simulate.replay(kernel, strategy, trials, expected, learn=learn, to_best=True)


def at_best(kernel: Sweep) -> bool:
    """Whether the default is within 2 % of the best: there is nothing to search for."""
    return simulate.trials_to([kernel.trial(kernel.default)], kernel) is not None


def table(results: Sequence[Result], trials: int) -> str:
    """The figures as Markdown, from best to worst."""
    random = next((r.median for r in results if r.name == "random"), math.nan)
    lines = [
        "| strategy | trials to within 2 % | of random's"
        f" | after {min(16, trials)} trials | not found | s each |",
        "|---|---|---|---|---|---|",
    ]
    for one in sorted(results, key=lambda r: r.median):
        after = float(np.exp(np.log(one.curves[:, :, min(16, trials)]).mean()))
        missing = float(np.isinf(one.needed).mean())
        lines.append(
            f"| {one.name} | {one.median:.1f} | {one.median / random:.2f} | {after:.3f} of best"
            f" | {missing:.0%} | {one.seconds:.2f} |"
        )
    return "\n".join(lines)


def goals(results: Sequence[Result]) -> str:
    """The goals of the learned search, with what came of them, and what none can do better than."""
    median = {one.name: one.median for one in results}
    if not {"random", COLD, PRETRAINED} <= median.keys():
        return ""
    learned = median[PRETRAINED] / median["random"]
    ratio = median[PRETRAINED] / median[COLD]
    return (
        f"The pretrained search needs {learned:.2f} of random's trials (goal 0.20"
        f"{'' if learned <= 0.2 else ', **missed**'}) and {ratio:.2f} of the cold one's (goal 0.50"
        f"{'' if ratio <= 0.5 else ', **missed**'}).  One that knew the best would need"
        f" {1 / median['random']:.2f} of random's.  If the default, which a tuning"
        " measures in any case, counted as a trial of each, the pretrained search would need"
        f" {(median[PRETRAINED] + 1) / (median['random'] + 1):.2f} of random's."
    )


def draw(results: Sequence[Result], path: Path) -> None:
    """Best so far over the space's best, geometric mean over kernels, 95 % band over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5))
    for one in sorted(results, key=lambda r: r.median):
        curves = np.exp(np.log(np.minimum(one.curves, 1e3)).mean(axis=0))
        mean = curves.mean(axis=0)
        band = 1.96 * curves.std(axis=0, ddof=1) / math.sqrt(len(curves)) if len(curves) > 1 else 0
        trials = np.arange(len(mean))
        (line,) = axes.plot(trials, mean, label=one.name, linewidth=1.4)
        axes.fill_between(trials, mean - band, mean + band, alpha=0.15, color=line.get_color())
    axes.set(xlabel="trials", ylabel="best so far / best of the space", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def page(figure: Path, section: str) -> str:
    """One HTML page that needs nothing else."""
    image = base64.b64encode(figure.read_bytes()).decode()
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Search strategies</title>'
        "<style>body{font:15px system-ui;max-width:60em;margin:2em auto}img{max-width:100%}"
        "pre{white-space:pre-wrap}</style><h1>Search strategies on the recorded sweep</h1>"
        '<img alt="Best time so far by trials, for each strategy" '
        f'src="data:image/png;base64,{image}"><pre>{html.escape(section)}</pre></html>\n'
    )


def main() -> None:
    """Replay, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=count, default=20, help="of each strategy (%(default)s)")
    parser.add_argument("--trials", type=count, default=64, help="of each kernel (%(default)s)")
    parser.add_argument("--strategies", help="these alone, with + between")
    parser.add_argument("--data", type=Path, default=SWEEPS[512, 1.0], help="a sweep (%(default)s)")
    options = parser.parse_args()
    every_name = [*strategies.catalogue().names(), *LEARNED]
    names = options.strategies.split("+") if options.strategies else every_name
    for name in set(names).difference(LEARNED):
        strategies.catalogue().create(name)  # what is wrong with one is said before any is replayed
    every = simulate.load(options.data)
    models = cache(lambda: train_cost_model.held_out(every))
    large = [kernel for kernel in every if len(kernel.points) >= _FEWEST_POINTS]
    sweeps = [kernel for kernel in large if not at_best(kernel)]
    if not sweeps:
        few = f"no kernel of {_FEWEST_POINTS} points or more whose default is not within 2 %"
        parser.error(f"{options.data}: {few}: nothing to search for")
    digest = _digest(options.data)
    results = [kept(name, digest, sweeps, models, options.seeds, options.trials) for name in names]
    sizes = [len(kernel.points) for kernel in sweeps]
    section = (
        f"{len(sweeps)} kernels with {min(sizes)} to {max(sizes)} points, {options.seeds} seeds,"
        f" {options.trials} trials in rounds of {simulate.ROUND}; medians over kernels.  On"
        f" {len(large) - len(sweeps)} more the default is within 2 % of the best.\n\n"
        f"{table(results, options.trials)}\n\n{goals(results)}"
    )
    print(section)
    draw(results, OUT / "strategies.png")
    (OUT / "strategies.html").write_text(page(OUT / "strategies.png", section))


if __name__ == "__main__":
    command_line.run(main)
