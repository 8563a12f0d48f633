"""The installed command: until all is imported, Ctrl-C ends it as later, and shows no traceback."""

import importlib
import signal

from hybridc.cli._interrupts import leave_at_once


def main() -> None:
    """Import the command line, and run it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave_at_once)
    importlib.import_module("hybridc.cli.main").main()
