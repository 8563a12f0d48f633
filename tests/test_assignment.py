"""The precision of each operator: greedy against all assignments there are."""

from itertools import product

import numpy as np
import pytest

from hybridc.compiler.quantization.assignment import Assignment, Choice, Greedy, Operator


def problem(seed: int, count: int = 6) -> list[Operator]:
    draw = np.random.default_rng(seed)
    made: list[Operator] = []
    for index in range(count):
        wide, error = draw.uniform(1, 10), 10 ** draw.uniform(-6, -2)
        choices = (
            Choice("fp32", wide, 0.0),
            Choice("bf16", wide * 0.6, error / 50),
            Choice("int8", wide * draw.uniform(0.3, 1.1), error),
        )
        made.append(Operator(f"product-{index}", choices))
    return made


def total(assignment: Assignment) -> tuple[float, float]:
    """Cost and error of all operators together."""
    choices = assignment.values()
    return sum(choice.cost for choice in choices), sum(choice.error for choice in choices)


def cheapest(operators: list[Operator], bound: float) -> float:
    """The least cost of all assignments within the bound, by trying each."""
    allowed = (
        [choice.cost for choice in choices]
        for choices in product(*(each.choices for each in operators))
        if sum(choice.error for choice in choices) <= bound
    )
    return min(map(sum, allowed))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.01, 0.0])
def test_greedy_keeps_the_bound_and_is_near_the_best(seed: int, share: float) -> None:
    operators = problem(seed)
    bound = share * sum(each.choices[-1].error for each in operators)
    chosen = Greedy().assign(operators, bound)
    cost, error = total(chosen)
    assert chosen.keys() == {each.name for each in operators}
    assert error <= bound
    best = cheapest(operators, bound)
    worst_step = max(each.choices[0].cost for each in operators)
    assert best <= cost + 1e-9
    assert cost <= best + worst_step


def test_a_precision_that_is_no_faster_is_not_taken() -> None:
    slow = Operator("conv2d-0", (Choice("fp32", 1.0, 0.0), Choice("int8", 1.5, 1e-9)))
    assert Greedy().assign([slow], 1.0)["conv2d-0"].precision == "fp32"


def test_what_cannot_keep_the_bound_is_as_precise_as_it_can_be() -> None:
    only = Operator("conv2d-0", (Choice("bf16", 2.0, 0.1), Choice("int8", 1.0, 0.5)))
    assert Greedy().assign([only], 0.0)["conv2d-0"].precision == "bf16"


def test_what_there_is_room_for_is_given_back() -> None:
    """The cheap one goes first for its error by time, and comes back once the dear one is gone."""
    cheap = Operator("matmul-0", (Choice("fp32", 2.0, 0.0), Choice("int8", 1.0, 3.0)))
    dear = Operator("conv2d-0", (Choice("fp32", 9.0, 0.0), Choice("int8", 5.0, 5.0)))
    chosen = Greedy().assign([cheap, dear], 4.0)
    assert {name: choice.precision for name, choice in chosen.items()} == {
        "matmul-0": "int8",
        "conv2d-0": "fp32",
    }
