# TVM annotates some of its functions, often too narrowly (`reshape` takes an Expr, never a tuple
# of int). To pyright all of TVM is Any, as it is to mypy; our own signatures give types again.
# pyright: reportIncompleteStub=false
from typing import Any

def __getattr__(name: str) -> Any: ...
