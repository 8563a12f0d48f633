"""TVM's own search: evolution of traces under a model that is trained on what was measured.

MetaSchedule (J. Shao et al., Tensor Program Optimization with Probabilistic Programs, NeurIPS
2022) as it comes with TVM: its sketches, its mutators, its features, its use of XGBoost.
"""

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hybridc.autotune import _points
from hybridc.compiler.errors import PluginError
from hybridc.compiler.interfaces import Match, Point, SearchTask, Strategy, Trial
from hybridc.compiler.tuning import strategies
from hybridc.compiler.tuning.sketches import SKETCH, Sketches, sketches

_BATCH = 16  # points of one evolution; a proposal wants eight, and some of them were tried
_ROUNDS = 4  # evolutions in one proposal
_FAILED = 1e10  # seconds, as TVM writes where a candidate failed


@dataclass(frozen=True)
class Metaschedule(Strategy):
    """Search a kernel's sketches with TVM's MetaSchedule; other spaces as `evolutionary` does.

    `population` traces evolve for `generations`.  Until `warmup` traces are measured, the ranking
    is random, since there is nothing to train on (TVM's own default is 100, and its population
    512).
    """

    population: int = 64
    generations: int = 4
    warmup: int = 8

    def __post_init__(self) -> None:
        """Refuse options that make no sense, and to work where XGBoost is not installed."""
        _points.at_least(self, "population", 2)
        _points.at_least(self, "generations", 1)
        _points.at_least(self, "warmup", 1)
        if importlib.util.find_spec("xgboost") is None:
            raise PluginError("metaschedule needs XGBoost: pip install 'hybridc[tune]'")

    def candidates(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterable[Point]:
        """What MetaSchedule would measure next; where TVM has no sketches, what evolution would."""
        if task.match is None or len(task.space.get(SKETCH, ())) < 2:
            other = strategies.catalogue().create("evolutionary")
            return other.candidates(task, history, draw)
        return self._searched(task.match, history, draw)

    def _searched(self, match: Match, history: Sequence[Trial], draw: Random) -> Iterator[Point]:
        """What a search that knows the history yields; it is built anew for each proposal."""
        found = sketches(match.func, match.target)
        context = found.searching(
            1 + draw.randrange(2**30),
            population_size=self.population,
            genetic_num_iters=self.generations,
        )
        known = [trial for trial in history if trial.point[SKETCH]]
        count = len(known) + _BATCH  # those that were measured may well be the best again
        database, model = self._learned(found, context, known, draw)
        spaces = [sketch.made for sketch in found.every]
        context.pre_tuning(_ROUNDS * count, count, spaces, database, model)
        for _ in range(_ROUNDS):
            for candidate in context.generate_measure_candidates() or ():
                if (point := found.point(candidate.sch.trace)) is not None:
                    yield point

    def _learned(
        self, found: Sketches, context: Any, known: Sequence[Trial], draw: Random
    ) -> tuple[Any, Any]:
        """TVM's database of what was measured, and the model that it teaches."""
        from tvm.s_tir import meta_schedule as tvm

        database = tvm.database.MemoryDatabase()
        workload = database.commit_workload(context.mod)
        types = tvm.arg_info.ArgInfo.from_prim_func(context.mod["main"])
        schedules = [found.schedule(trial.point) for trial in known]
        for schedule, trial in zip(schedules, known, strict=True):
            seconds = [_FAILED if trial.seconds is None else trial.seconds]
            record = tvm.database.TuningRecord(
                schedule.trace, workload, seconds, context.target, types
            )
            database.commit_tuning_record(record)
        if len(known) < self.warmup:
            return database, tvm.cost_model.RandomModel(seed=draw.randrange(2**30))
        model = tvm.cost_model.XGBModel(num_warmup_samples=0, num_tuning_cores=1)
        candidates = [tvm.MeasureCandidate(schedule, types) for schedule in schedules]
        results = [
            tvm.runner.RunnerResult(None if t.seconds is None else [t.seconds], None) for t in known
        ]
        model.update(context, candidates, results)
        return database, model
