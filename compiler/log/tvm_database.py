"""TVM's tuning database, two files of JSON lines in a directory, in and out.

A record of TVM has a trace instead of a point: it becomes a record of the rule `metaschedule`, and
keeps the line that it was, so that it goes back as it came.  TVM compares no answer, so such a
record is `unchecked` and cannot win.  Where two processes wrote one database, TVM has mixed up
which record belongs to which workload; a trace that does not fit its workload is skipped.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hybridc.compiler import target as targets
from hybridc.compiler.errors import HybridcError, InputError, described
from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.log.access import GENERIC
from hybridc.compiler.log.keys import Described, of_kernel, of_target
from hybridc.compiler.log.record import Record, Verdict, canonical
from hybridc.compiler.log.store import Faults, TuningLog

_WORKLOADS, _RECORDS = "database_workload.json", "database_tuning_record.json"
_FAILED = 1e9  # seconds; TVM writes 1e10 where a candidate failed
# TVM's records do not say which TVM or LLVM made the code.
_TOOLS = Described.of("toolchain", {"tvm": "unknown", "source": "a database of TVM"})


def read(path: Path, faults: Faults) -> Iterator[Described | Record]:
    """The records of a database whose traces replay on their workloads."""
    if not (path / _RECORDS).is_file() or not (path / _WORKLOADS).is_file():
        raise InputError(f"{path} does not contain a TVM database: {_WORKLOADS} and {_RECORDS}")
    moment = (path / _RECORDS).stat().st_mtime
    yield _TOOLS
    workloads: list[_Workload | None] = []
    for line in _lines(path / _WORKLOADS, faults):
        workloads.append(None if line is None else _workload(line, faults))
    for found in workloads:
        if found is not None:
            yield from (found.described, found.module)
    for line in _lines(path / _RECORDS, faults):
        if line is not None:
            yield from _items(line, workloads, moment, faults)


def write(path: Path, log: TuningLog, faults: Faults) -> int:
    """Write the records that came from TVM's search; those with points are counted as skipped."""
    path.mkdir(parents=True, exist_ok=True)
    modules = {d.key: d.data for d in log.described(faults) if d.kind == "module"}
    places: dict[str, int] = {}
    lines: list[str] = []
    for record in log.records(faults=faults):
        module = module_of(record)
        if module in modules:
            place = places.setdefault(module, len(places))
            lines.append(json.dumps([place, json.loads(record.trace)["record"]]))
        else:
            faults.add(f"a record of {record.rule} has a point, and TVM wants a trace")
    workloads = [json.dumps(modules[key]) for key in places]
    for name, content in ((_WORKLOADS, workloads), (_RECORDS, lines)):
        with replacing(path / name) as stream:
            stream.writelines(f"{line}\n".encode() for line in content)
    return len(lines)


def module_of(record: Record) -> str:
    """The key of the module that a record's trace is for; empty if it has none."""
    if record.rule != GENERIC:
        return ""
    try:
        return str(json.loads(record.trace)["module"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


class _Workload:
    """A workload of a database: TVM's own object, and the two descriptions of it.

    Raises InputError if the line is none.
    """

    def __init__(self, line: Any) -> None:
        from tvm import tirx
        from tvm.s_tir.meta_schedule.database import Workload

        try:
            self.tvm = Workload.from_json(line)
            (func,) = (f for f in self.tvm.mod.functions.values() if isinstance(f, tirx.PrimFunc))
            self.described = of_kernel(func)
        except HybridcError:
            raise
        except Exception as error:  # TVM raises errors of many kinds
            raise InputError(f"a TVM workload cannot be read: {described(error)}") from None
        self.module = Described.of("module", line)

    def replays(self, data: Any) -> bool:
        """Whether the trace of a record, TVM's data, applies to this workload."""
        from tvm.s_tir import Schedule
        from tvm.s_tir.meta_schedule.database import TuningRecord

        try:
            record = TuningRecord.from_json(data, self.tvm)
            record.trace.apply_to_schedule(Schedule(self.tvm.mod), remove_postproc=False)
        except Exception:  # as above: whatever the reason, the trace is not for this workload
            return False
        return True


def _workload(line: Any, faults: Faults) -> _Workload | None:
    try:
        return _Workload(line)
    except HybridcError as error:
        faults.add(str(error))
        return None


def _items(
    line: Any, workloads: Sequence[_Workload | None], moment: float, faults: Faults
) -> Iterator[Described | Record]:
    try:
        place, data = line
        workload = workloads[place] if 0 <= place < len(workloads) else None
        if workload is None:
            raise InputError(f"a TVM record is for workload {place}, which cannot be read")
        if not workload.replays(data):
            raise InputError(f"a record's trace does not fit workload {place}")
        target = _target(data[2])
        yield target
        yield _record(data, workload, target, moment)
    except InputError as error:
        faults.add(str(error))
    except Exception as error:  # TVM raises errors of many kinds
        faults.add(f"a record of TVM cannot be read: {described(error)}")


def _record(data: Any, workload: _Workload, target: Described, moment: float) -> Record:
    seconds = tuple(float(sample) for sample in data[1] or ())
    ran = bool(seconds) and all(0 < sample < _FAILED for sample in seconds)
    return Record(
        workload=workload.described.key,
        target=target.key,
        toolchain=_TOOLS.key,
        rule=GENERIC,
        point={},
        verdict=Verdict.UNCHECKED if ran else Verdict.CRASH,
        seconds=seconds if ran else (),
        when=moment,
        who="tvm",
        seed=0,
        trace=canonical({"module": workload.module.key, "record": data}),
    )


def _target(data: Any) -> Described:
    """The features of a CPU that TVM describes, with this host's caches; others as TVM's data.

    So are CPUs of which TVM tells what ours do not have, and features of no CPU that it names: to
    TVM that is the least of all, to us this host's.
    """
    ours = isinstance(data, dict) and data.get("kind") == "llvm" and data.keys() <= {*targets.KEYS}
    if ours and ("mcpu" in data or "mattr" not in data):
        return of_target(targets.parse(json.dumps(data)))
    return Described.of("target", data)


def _lines(path: Path, faults: Faults) -> Iterator[Any]:
    """Each line's data; None for a torn one, which keeps the place of a workload."""
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.add(f"{path.name}, line {number}: {error}")
            yield None
