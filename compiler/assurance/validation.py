"""The user's own measure of a model: a function that runs it as it likes and returns a number."""

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hybridc.compiler.errors import InputError, described, hint
from hybridc.compiler.model import Array, Model
from hybridc.compiler.orchestration.time_budget import OutOfTimeError, ending
from hybridc.compiler.runtime.node_arg import NodeArg, node_arg


class Runner(Protocol):
    """What the function is given: the calls of `InferenceSession`."""

    def get_inputs(self) -> list[NodeArg]:
        """Describe the inputs, in the order in which a call takes them."""
        ...

    def get_outputs(self) -> list[NodeArg]:
        """Describe the outputs, in the order in which a call gives them."""
        ...

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Array]
    ) -> list[Array]:
        """Compute the named outputs (None: all) from arrays by input name."""
        ...


Validate = Callable[[Runner], Any]


class ReferenceRunner:
    """A model's reference with the calls of `InferenceSession`."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def get_inputs(self) -> list[NodeArg]:
        """Describe the inputs, in the order in which a call takes them."""
        return list(map(node_arg, self._model.inputs))

    def get_outputs(self) -> list[NodeArg]:
        """Describe the outputs, in the order in which a call gives them."""
        return list(map(node_arg, self._model.outputs))

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Array]
    ) -> list[Array]:
        """Compute the named outputs (None: all) from arrays by input name."""
        outputs = self._model.reference(input_feed)
        places = {spec.name: place for place, spec in enumerate(self._model.outputs)}
        for name in output_names or ():
            if name not in places:
                raise InputError(f"no output is named {name!r}; {hint(name, places)}")
        return [outputs[places[name]] for name in output_names or places]


def load(text: str) -> Validate:
    """Find the function of `package.module:name`, also beside the current directory's files.

    Importing a module runs it.  Raises InputError where there is none.
    """
    module_name, _, name = text.partition(":")
    if not module_name or not name or module_name.startswith("."):
        raise InputError(f"--validate {text!r} is not of the form package.module:function")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the module's own code raises
        raise InputError(f"cannot import {module_name!r}: {described(error)}") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    found: Validate | None = getattr(module, name, None)
    if not callable(found):
        names = [each for each, value in vars(module).items() if callable(value)]
        raise InputError(f"{module_name} has no function {name!r}; {hint(name, names)}")
    return found


def figure(validate: Validate, runner: Runner, left: float | None = None) -> float:
    """The number that the function gives.

    Raises InputError where it raises, or gives none, and OutOfTimeError where it takes longer than
    the seconds that are `left`.
    """
    name = name_of(validate)
    try:
        with ending(left, f"the budget ended within the validation function {name}"):
            value = validate(runner)
    except (OutOfTimeError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever the user's code raises
        raise InputError(f"the validation function {name} raised {described(error)}") from error
    try:
        number = _number(value)
    except (TypeError, ValueError) as error:
        kind = type(value).__name__
        raise InputError(
            f"the validation function {name} must return a number, got {kind}"
        ) from error
    if not math.isfinite(number):
        raise InputError(f"the validation function {name} returned {number}")
    return number


def _number(value: Any) -> float:
    """A number, or what holds a single one: scalars of numpy and torch, arrays of one element.

    Raises TypeError or ValueError where it is none; text that reads like a number is none.
    """
    if isinstance(value, str | bytes):
        raise TypeError
    return float(value.item() if hasattr(value, "item") else value)


def name_of(validate: Validate) -> str:
    """The function's name for people and for contracts."""
    return getattr(validate, "__name__", type(validate).__name__)
