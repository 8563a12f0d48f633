"""Properties of whatever is drawn: few examples in the fast tests, many in the slow ones."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from cpus import CPUS
from hypothesis import given, settings
from hypothesis import strategies as st


def drawn(
    few: int, many: int, /, **strategies: st.SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Test a function on `few` examples of these strategies, and on `many` in a slow test.

    Its other parameters are those of pytest.  The examples are the same each time.  Where `cpu` is
    not the first that kernels are compiled for, `few` are a third of that.
    """

    def decorate(property_: Callable[..., None]) -> Callable[..., None]:
        def run(examples: int, **fixed: Any) -> None:
            def of_example(**example: Any) -> None:
                property_(**fixed, **example)

            later = examples == few and fixed.get("cpu", CPUS[0]) != CPUS[0]
            count = max(2, examples // 3) if later else examples
            how = settings(max_examples=count, deadline=None, derandomize=True)
            how(given(**strategies)(of_example))()

        own = inspect.signature(property_).parameters.values()
        fixed = [each for each in own if each.name not in strategies]
        number = inspect.Parameter("examples", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        run.__signature__ = inspect.Signature([*fixed, number])  # pyright: ignore[reportFunctionMemberAccess]
        run.__name__, run.__doc__ = property_.__name__, property_.__doc__
        run.__module__ = property_.__module__
        examples = [few, pytest.param(many, marks=pytest.mark.slow)]
        return pytest.mark.parametrize("examples", examples)(run)

    return decorate
