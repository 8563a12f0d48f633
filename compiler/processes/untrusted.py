"""Read a model that nobody vouches for in a process with limits, before this one reads it.

A parser that crashes, runs on or fills the memory takes that process alone, and the user gets one
line.  `glance` is cheap: a fork that parses and checks the file with onnx.  `examine` imports the
model whole and runs its reference once, in a process of its own.
"""

import os
import select
import signal
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NoReturn

from hybridc.compiler import dims, errors, settings
from hybridc.compiler.dims import Shape
from hybridc.compiler.errors import HybridcError, InputError, ModelError
from hybridc.compiler.frontends.onnx_graph import model_file
from hybridc.compiler.processes import fork, rlimits
from hybridc.compiler.processes.child import Child, ChildError
from hybridc.compiler.text.units import format_size

# Up to this size a glance takes less than 0.2 s.
GLANCED = 2**26
_GLANCE_SECONDS = 5
_WAIT = 60.0  # seconds on the wall for seconds of the CPU, on a busy machine
_MODULE = "hybridc.compiler.processes.untrusted_child"
_START = 120.0
_WELL = b"\0"
SECONDS = 10
MEMORY = 2 * 2**30


def glance(path: Path) -> None:
    """Parse and check an ONNX file in a fork of this process.

    Raises ModelError if the file is no valid model, or its reader ends or takes too much.
    """
    import onnx  # here, so that the fork does not load it once more

    del onnx
    readable, writable = os.pipe()
    child = fork.forked()
    if child == 0:
        _look(path, writable)
    os.close(writable)
    with os.fdopen(readable, "rb") as stream:
        reply = _read(stream.fileno())
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if reply != _WELL:
        how = os.waitstatus_to_exitcode(status)
        raise ModelError(reply.decode(errors="replace") or _death(path, how, _GLANCE_SECONDS))


def _look(path: Path, answer: int) -> NoReturn:
    """The fork's side: read, and write `_WELL` or what is wrong; whatever happens, end."""
    reply = b""
    try:
        import onnx

        limit(_GLANCE_SECONDS, MEMORY)
        file = model_file.read(path, bulk=False)
        with suppress(Exception):  # what cannot be inferred is told later; here it may only crash
            onnx.shape_inference.infer_shapes(file.proto, data_prop=True)
        reply = _WELL
    except HybridcError as error:
        reply = str(error).encode()
    except MemoryError:
        reply = f"{path}: reading it takes more than {format_size(MEMORY)} of memory".encode()
    except Exception as error:
        reply = f"{path}: cannot be read: {type(error).__name__}: {error}".encode()
    finally:
        os.write(answer, reply[:4096])
        os._exit(0)


def _read(descriptor: int) -> bytes:
    """What the fork says before it ends, or in the time that it has."""
    if not select.select([descriptor], [], [], _WAIT)[0]:
        return b""
    return os.read(descriptor, 4096)


def _death(path: Path, code: int, seconds: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"{path}: reading it takes more than {seconds} s"
    if code < 0:
        return f"{path}: its reader was ended by {signal.Signals(-code).name}"
    return f"{path}: its reader ended with {code}"


def examine(path: Path, shapes: Mapping[str, Shape]) -> None:
    """Import a model whole and run its reference, in a process of its own with limits.

    Raises ModelError or InputError for what is wrong with the model, or with how it is read.
    """
    with closing(Inspector()) as inspector:
        inspector.examine(path, shapes)


class Inspector:
    """The process that examines models, one after the other; a new one where one was lost."""

    def __init__(self, seconds: int = SECONDS, memory: int = MEMORY) -> None:
        self._limits = {"seconds": seconds, "memory": memory}
        self._seconds = seconds
        self._child: Child | None = None

    def examine(self, path: Path, shapes: Mapping[str, Shape]) -> None:
        """As the function of that name."""
        child = self._ready()
        written = {name: dims.write(shape) for name, shape in shapes.items()}
        request = {"path": str(path), "shapes": written}
        try:
            for step in ("load", "reference"):
                answer = child.ask({"do": step, **request, **self._limits}, _WAIT)
                if "error" in answer:
                    raise _refusal(path, answer)
        except ChildError as error:
            self._child = None
            code = -signal.SIGXCPU if error.timed_out else error.code
            raise ModelError(_death(path, code, self._seconds)) from None

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _ready(self) -> Child:
        if self._child is None:
            self._child = Child(_MODULE, settings.environment(1))
            self._child.ask({"do": "start"}, _START)
        return self._child


def _refusal(path: Path, answer: Mapping[str, Any]) -> HybridcError:
    """The child's error as one of ours; any other is a fault in reading the file."""
    kind, message = answer["kind"], str(answer["error"])
    if issubclass(getattr(errors, kind, type(None)), InputError):
        return ModelError(
            message.removeprefix(f"{kind}: ")
        )  # others of the kind take more than a text
    if kind == "MemoryError" or "bad_alloc" in message:
        return ModelError(f"{path}: reading it takes more than {format_size(MEMORY)} of memory")
    return ModelError(f"{path}: cannot be imported: {message[:300]}")


def limit(seconds: int, memory: int) -> None:
    """Limit what this process may take from now on: seconds of the CPU, bytes beyond those held."""
    rlimits.seconds(seconds)
    rlimits.memory(memory)
    rlimits.no_dump()
