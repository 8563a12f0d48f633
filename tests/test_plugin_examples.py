"""The plug-ins of docs/plug-ins.md, given by `--plugin`, do what the page says of them."""

from pathlib import Path
from typing import Any

import pytest
from kernel_builders import Operand, bf16, floats, operator
from test_control import FAST, all_better, go, verdicts
from test_rule_conformance import check
from test_strategies import TASK, search, seconds
from tvm import relax

from hybridc.cli import main as entry
from hybridc.compiler import pipeline, plugin, target
from hybridc.compiler.interfaces import NotApplicable, PrimFunc, ScheduleRule
from hybridc.compiler.kernels import recurrence
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.tuning import strategies

PLUGINS = Path(__file__).parent.parent / "examples/plugins"
op: Any = relax.op


def rule() -> ScheduleRule:
    catalogue = plugin.Catalogue("hybridc.schedules", ScheduleRule, (PLUGINS / "flat_loop.py",))
    return catalogue.create("flat-loop")


@pytest.mark.parametrize("operands", [floats((3, 5), (5,)), floats((2, 8, 7), (1,)), bf16((9,))])
def test_the_rule_keeps_its_contract(operands: list[Operand]) -> None:
    cpu = target.parse("cpu")
    (func,) = operator(lambda x, *others: op.add(x, *others or (x,)), *operands)(cpu)
    assert check(rule(), func, cpu)


def test_the_rule_says_what_it_does_not_take() -> None:
    cpu = target.parse("cpu")
    kernels: list[PrimFunc] = [
        *operator(op.nn.relu, *floats((64, 65)))(cpu),
        *operator(lambda x: op.sum(x, 1), *floats((64, 65)))(cpu),
        recurrence.kernel("GRU", 3, 2, 7, reverse=False),
        *operator(op.nn.relu, *floats(()))(cpu),
    ]
    reasons = [rule().match(func, cpu) for func in kernels]
    assert reasons == [
        NotApplicable("it has 4160 elements, more than 4096"),
        NotApplicable("it is not a single elementwise block"),
        NotApplicable("it is opaque: its loops stand outside of blocks"),
        NotApplicable("it has no loops"),
    ]


def test_the_rule_is_asked_before_elementwise() -> None:
    names = [plugin.name_of(type(each)) for each in pipeline.rules((PLUGINS / "flat_loop.py",))]
    assert names.index("flat-loop") < names.index("elementwise")


def test_the_strategy_descends() -> None:
    strategy = strategies.catalogue((PLUGINS / "coordinate_descent.py",)).create(
        "coordinate-descent"
    )
    best = min(seconds(TASK.point(i)) for i in range(TASK.size))
    trials = search(strategy, TASK, TASK.size // 2)
    assert min(trial.cost for trial in trials) <= 1.01 * best
    assert len({tuple(trial.point.items()) for trial in trials}) == len(trials)


def test_the_control_strategy_stops_at_the_first_stage_that_stays() -> None:
    steering = Steering("first-gain")
    found = go(steering, all_better(), FAST, plugins=(PLUGINS / "first_gain.py",))
    assert list(verdicts(found).values())[:2] == ["kept", "kept"]
    assert "kept" not in list(verdicts(found).values())[2:]


def test_all_of_them_go_with_one_compilation(tiny_model: Path, tmp_path: Path) -> None:
    files = [word for path in sorted(PLUGINS.glob("*.py")) for word in ("--plugin", str(path))]
    options = ["--strategy", "first-gain", "--pipeline", "merge-clips,default"]
    assert (
        entry.run(["compile", str(tiny_model), "-o", str(tmp_path / "m.hyb"), *options, *files])
        == 0
    )
