"""The entry point `hybridc`: finds the verbs, and turns errors into one line and an exit code.

Exit codes: 0 done; 1 internal error; 2 bad command or input; 3 contract broken; 4 tuning record
missing; 130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
"""

import atexit
import gc
import importlib
import os
import pkgutil
import shlex
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

import click

import hybridc.cli
from hybridc.cli import _streams
from hybridc.cli._elsewhere import elsewhere
from hybridc.cli._interrupts import INTERRUPTED, heeding
from hybridc.cli._named import NamedGroup, help_alone
from hybridc.cli._watched import watched
from hybridc.compiler import settings
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.installation.packages import version_of
from hybridc.compiler.log.urls import hidden
from hybridc.compiler.processes import tvm_alone

# New objects between two garbage collections. A compilation makes millions of objects, few of them
# in cycles: 3 to 8 % faster than with Python's 700.
_OBJECTS = 50_000
BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports a program whose reader went away
# Options that name, or may name, user code that is run in this process.
_OWN_CODE = frozenset({"--validate", "--config", "--plugin"})
_CUT_SHORT = (
    "the process was ended from within before the work was done; a validation function or a plug-in"
    " must not call sys.exit or os._exit"
)
_PARTS = ("hybridc", "apache-tvm", "apache-tvm-ffi", "onnx", "onnxruntime", "numpy")


class Verbs(NamedGroup):
    """A group whose commands are the files of this folder, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every verb: a module of this folder that is neither private nor this one."""
        stems = (module.name for module in pkgutil.iter_modules(hybridc.cli.__path__))
        return sorted(stem for stem in stems if stem != "main" and not stem.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and take its `command`."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"hybridc.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb, without click's own handling of what ends it.

        That calls a closed pipe a failure, and adds an empty line to what is told of a signal.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return _reader_gone()
        except KeyboardInterrupt as error:
            if sys.stderr.isatty():  # ^C stands in the line
                click.echo(err=True)
            return _interrupted(error)


@click.group(
    cls=Verbs,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(version("hybridc"), message="hybridc %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def commands(ctx: click.Context, debug: bool) -> None:
    """Compile ONNX and PyTorch models into fast, verified artifacts."""
    del debug  # `run` reads it from the arguments, so that it also covers errors in them
    help_alone(ctx)


def main() -> None:
    """Run the command line, and exit with its code."""
    arguments = sys.argv[1:]
    _streams.prepare()
    tvm_alone.hide_torch()
    gc.set_threshold(_OBJECTS, 10, 10)
    if _OWN_CODE.isdisjoint(argument.partition("=")[0] for argument in arguments):
        _leave(heeding(lambda: run(arguments)))
    code = watched(lambda: heeding(lambda: run(arguments)), _leave)
    _leave(_fail(_CUT_SHORT, 2) if code is None else code)


def _leave(code: int) -> NoReturn:
    """End the process after Python's exit handlers, but without those of shared libraries.

    TVM's handler joins its idle threads, which yield 300,000 times before they check for that:
    instant on a quiet machine, minutes on a busy one.
    """
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; a failure is one line on stderr."""
    debug = "--debug" in arguments or settings.debug()
    rest = [argument for argument in arguments if argument != "--debug"]
    try:
        result = commands.main(rest, prog_name="hybridc", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_gone()
    except (KeyboardInterrupt, click.Abort) as error:
        # click turns what interrupts the reading of arguments into Abort, and keeps its cause.
        return _interrupted(error.__cause__ or error)
    except SystemExit:  # of user code: click's own exits are results
        return _fail(_CUT_SHORT, 2)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _report(error, arguments)
    return result if isinstance(result, int) else 0


def _interrupted(error: BaseException) -> int:
    """Say by what, or what is kept, where that is known; Ctrl-C explains itself."""
    if reason := str(error):
        click.echo(f"hybridc: interrupted: {reason}", err=True)
    return INTERRUPTED


def _reader_gone() -> int:
    """Discard further output, so that the interpreter's last flush stays quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _refused(error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename}: no such file"
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def _report(error: Exception, arguments: Sequence[str]) -> int:
    match error:
        case HybridcError():
            return _fail(str(error), error.exit_code)
        case click.ClickException():
            return _fail(_with_help(error), 2)
        case OSError():
            return _fail(_refused(error), 2)
        case MemoryError():
            return _fail(_without_room(error), 2)
        case _:
            return _fail(_fault(error, arguments), 1)


def _fail(message: str, code: int) -> int:
    click.echo(f"hybridc: error: {' '.join(message.split())}", err=True)
    return code


def _with_help(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    where = context.command_path if context else "hybridc"
    known = elsewhere(error) if isinstance(error, click.NoSuchOption) else ""
    return f"{known or error.format_message()} (see `{where} --help`)"


def _without_room(error: MemoryError) -> str:
    said = str(error).strip().partition("\n")[0]
    return f"there is not enough memory{': ' * bool(said)}{said}"


def _fault(error: Exception, arguments: Sequence[str]) -> str:
    """A message that says the fault is ours, and what to report."""
    call = shlex.join(["hybridc", *map(hidden, arguments)])
    message = str(error).strip().split("\n")[0]
    return (
        f"internal error: {type(error).__name__}: {message}; please report it with the model and "
        f"this command: `{call}` (--debug shows the traceback; {_versions()})"
    )


def _versions() -> str:
    python = ".".join(map(str, sys.version_info[:3]))
    found = (f"{part} {version_of(part) or 'missing'}" for part in _PARTS)
    return ", ".join([f"python {python}", *found])


if __name__ == "__main__":
    main()
