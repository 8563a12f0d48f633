"""A schedule rule whose points fail in every way there is, and a small kernel for it."""

from pathlib import Path
from typing import Any

from hybridc.compiler import plugin, target
from hybridc.compiler.interfaces import ScheduleRule
from hybridc.compiler.tuning.kernel import Kernel

FAULTS = {
    "fine": 0,
    "also-fine": 1,
    "crash-in-build": 2,
    "hang-in-build": 3,
    "memory-in-build": 4,
    "raise-in-build": 5,
    "wrong": 6,
    "crash": 7,
    "hang": 8,
    "memory": 9,
    "unwritten": 10,
}
# Of these the verdict is the word before the dash, but for two.
VERDICTS = {"fine": "ok", "also-fine": "ok", "raise-in-build": "refused", "hang": "timeout"}

_SOURCE = '''
import ctypes
from dataclasses import dataclass
from typing import ClassVar

import tvm
from tvm.script import from_source, tirx

from hybridc.compiler.interfaces import Match, ScheduleRule

BODY = """
@T.prim_func(s_tir=True)
def main(x: T.Buffer((1024,), "float32"), y: T.Buffer((1024,), "float32")):
    {before}
    for i in range({extent}):
        with T.sblock("add"):
            at = T.axis.spatial(1024, i)
            y[at] = x[at] + T.float32({amount})
"""
BEFORE = {
    7: 'T.evaluate(T.call_extern("int32", "raise", 11))',
    8: 'T.evaluate(T.call_extern("int32", "pause"))',
    9: HOG,
}


def func(fault):
    before = BEFORE.get(fault, "T.evaluate(0)")
    amount, extent = (2.0 if fault == 6 else 1.0), (512 if fault == 10 else 1024)
    text = BODY.format(before=before, amount=amount, extent=extent)
    return from_source(text, {"T": tirx})


@dataclass(frozen=True)
class Faulty(ScheduleRule):
    """Take every kernel."""

    priority: ClassVar[int] = 1000

    def match(self, func, target):
        return Match(func, target)

    def knobs(self, match):
        return {"fault": tuple(range(11)), "other": (0, 1)}

    def default(self, match, target):
        return {"fault": 0, "other": 0}

    def schedule(self, match, point):
        fault = point["fault"]
        if fault == 2:
            ctypes.string_at(0)
        while fault == 3:
            pass
        if fault == 4:
            held = []
            while True:
                held.append(bytearray(2**24))
        if fault == 5:
            raise ValueError("there is no such tile")
        return tvm.s_tir.Schedule(func(fault))
'''
_HOG = (
    "'T.evaluate(T.call_extern("
    '"handle", "TVMBackendAllocWorkspace", 1, 0, T.uint64(2**45), 2, 32))'
    "'"
)


def written(folder: Path) -> Path:
    """The rule as a plug-in file."""
    path = folder / "faulty.py"
    path.write_text(_SOURCE.replace("HOG", _HOG))
    return path


def kernel(path: Path) -> Kernel:
    """A kernel that adds one, taken by the rule of this file."""
    found = plugin.Catalogue("hybridc.schedules", ScheduleRule, (path,))
    rule: Any = found.create("faulty")
    here = target.parse("cpu", threads=1)
    made = rule.schedule(None, {"fault": 0, "other": 0}).mod["main"]
    return Kernel("add-one", made, rule, here, plugins=(path,))


def point(fault: str, other: int = 0) -> dict[str, int]:
    """The point with a fault."""
    return {"fault": FAULTS[fault], "other": other}


def verdict(fault: str) -> str:
    """How measuring it shall end."""
    word = fault.partition("-")[0]
    special = {"unwritten": "wrong", "hang": "timeout", **VERDICTS}
    return special.get(fault) or special.get(word, word)
