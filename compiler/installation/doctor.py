"""Look at the installation and the machine, and say what to do about what is wrong."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import requires
from typing import Any, Literal

from packaging.requirements import Requirement

from hybridc.compiler import settings
from hybridc.compiler.cuda import driver, toolchain
from hybridc.compiler.errors import InputError, LogError
from hybridc.compiler.filesystem import scratch
from hybridc.compiler.filesystem.files import reason
from hybridc.compiler.hardware import host
from hybridc.compiler.installation.packages import installed, version_of
from hybridc.compiler.log import access
from hybridc.compiler.text.tables import table

Status = Literal["ok", "note", "bad"]

# Distribution -> what breaks with releases outside our pin, where that is known.
_KNOWN_FAULTS = {"apache-tvm-ffi": "0.1.15 crashes in tvm.ir.save_json"}
_EXTRAS = {
    "torch": "PyTorch models",
    "bench": "the peers of `hybridc bench`",
}
# In a process of its own: a broken binary package may crash the interpreter.
_PROBE = """
import json
from hybridc.compiler.processes import tvm_alone
tvm_alone.hide_torch()
import tvm
from hybridc.compiler import target
from hybridc.compiler.hardware import instructions
threads = tvm.get_global_func("runtime.NumThreads")()
found = {"version": tvm.__version__, "threads": threads, "named": instructions.system_cpu()}
here = target.parse("cpu")
print(json.dumps({**found, "cpu": here.cpu, "attributes": here.attributes}))
"""
_PROBE_SECONDS = 120


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, and what to do about it.

    `bad` means that hybridc cannot work; `note` that something is slower or missing.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def examine() -> list[Check]:
    """Make every check.  The run of TVM takes some seconds."""
    checks: tuple[Callable[[], Iterator[Check]], ...] = (
        _python,
        _packages,
        _extras,
        _tvm,
        _cpu,
        _tools,
        _cuda,
        _cache,
        _log,
        _temporary,
    )
    return [found for check in checks for found in check()]


def probe() -> Iterator[Check]:
    """Measure the machine anew, and keep it for rooflines and for the choice of schedules."""
    from hybridc.compiler import target
    from hybridc.compiler.hardware import load, peaks
    from hybridc.compiler.hardware import probe as machine

    here = target.parse("cpu")
    most = peaks.peaks(here, fresh=True)
    found, busy = machine.probe(here)
    yield Check("peaks", "ok", most.text())
    yield Check("core", "ok", found.text())
    kept = f"measured on {here.threads} threads, kept in {settings.cache_directory()}"
    if busy <= load.QUIET:
        yield Check("probe", "ok", kept)
    else:
        state = f"not kept: other programs kept {busy:.1f} cores busy"
        yield Check("probe", "note", state, "probe again when the machine is quiet")


def healthy(checks: list[Check]) -> bool:
    """Whether hybridc can work here."""
    return all(check.status != "bad" for check in checks)


def text(checks: list[Check]) -> str:
    """The checks as a table; what to do stands in a line of its own, below what was found."""
    rows: list[tuple[str, str, str]] = []
    for check in checks:
        rows.append((check.status, check.name, check.found))
        if check.advice:
            rows.append(("", "", f"-> {check.advice}"))
    return table(("", "check", "found -> what to do"), rows)


def to_json(checks: list[Check]) -> dict[str, Any]:
    """The checks as JSON data."""
    return {"healthy": healthy(checks), "checks": [asdict(check) for check in checks]}


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        yield Check("python", "note", found, "only Linux on x86-64 is tested")
        return
    yield Check("python", "ok", found)


def _packages() -> Iterator[Check]:
    """The core packages against the pins in our own metadata."""
    for text in requires("hybridc") or []:
        requirement = Requirement(text)
        if requirement.marker is None:
            yield _package(requirement)


def _package(requirement: Requirement) -> Check:
    name, install = requirement.name, f"pip install '{requirement}'"
    found = version_of(name)
    if found is None:
        return Check(name, "bad", "not installed", install)
    if requirement.specifier.contains(found, prereleases=True):
        return Check(name, "ok", found)
    why = f" ({_KNOWN_FAULTS[name]})" if name in _KNOWN_FAULTS else ""
    return Check(name, "bad", f"{found}, but {requirement.specifier} is needed{why}", install)


def _extras() -> Iterator[Check]:
    for extra, purpose in _EXTRAS.items():
        missing = [name for name in _names_of(extra) if not installed(name)]
        if missing:
            advice = f"for {purpose}: pip install 'hybridc[{extra}]'"
            yield Check(f"extra {extra}", "note", f"without {', '.join(missing)}", advice)
        else:
            yield Check(f"extra {extra}", "ok", "installed")


def _names_of(extra: str) -> list[str]:
    wanted = map(Requirement, requires("hybridc") or [])
    return [r.name for r in wanted if r.marker is not None and r.marker.evaluate({"extra": extra})]


def _tvm() -> Iterator[Check]:
    """Whether TVM starts, and the threads that it takes when told as sessions tell it."""
    wanted = settings.requested_threads() or host.cores()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            env=settings.environment(wanted),
            check=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        yield Check("tvm", "bad", f"it does not start: {_cause(error)}", "reinstall apache-tvm")
        return
    yield Check("tvm", "ok", f"{found['version']} starts")
    taken = f"TVM takes {found['threads']} of {host.cores()} cores"
    if found["threads"] < host.cores():
        yield Check("threads", "note", taken, "unset TVM_NUM_THREADS, or set it to use all cores")
    else:
        yield Check("threads", "ok", taken)
    yield Check("code", "ok", _code(found["named"], found["cpu"], found["attributes"]))


def _code(named: str, cpu: str, attributes: Sequence[str]) -> str:
    """For which CPU code is generated, and why it is not the one that LLVM names."""
    added, taken = (
        ", ".join(each[1:] for each in attributes if each[0] == sign) for sign in ("+", "-")
    )
    text = f"for {cpu}{f' with {added}' if added else ''}"
    if cpu != named:
        text += f" (LLVM does not know this CPU, and calls it {named})"
    return text + (f", without what this host does not offer: {taken}" if taken else "")


def _cause(error: Exception) -> str:
    lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _cpu() -> Iterator[Check]:
    features = sorted(host.cpu_features())
    found = f"{host.cpu_model()}: {' '.join(features) or 'nothing beyond x86-64'}"
    if "avx2" not in features or "fma" not in features:
        yield Check("cpu", "note", found, "schedules are made for AVX2 and AVX-512; expect less")
    else:
        yield Check("cpu", "ok", found)
    l1, l2, l3 = (size // 2**10 for size in host.cache_sizes())
    found = f"L1 {l1} KiB, L2 {l2} KiB, L3 {l3} KiB"
    untold = [f"L{level}" for level in (1, 2, 3) if str(level) not in host.known_caches()]
    if untold:
        found += f"; the system does not tell of {', '.join(untold)}, and usual sizes are assumed"
    yield Check("caches", "note" if untold else "ok", found)


def _tools() -> Iterator[Check]:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang", "g++"))), None)
    if compiler is None:
        advice = "install gcc or clang: kernels are linked into a shared library"
        yield Check("c compiler", "bad", "none found", advice)
    else:
        yield Check("c compiler", "ok", compiler)


def _cuda() -> Iterator[Check]:
    """What compiles for GPUs, and which of them are here; a CPU needs neither."""
    try:
        yield Check("cuda compiler", "ok", toolchain.find().describe())
    except InputError as error:
        advice = f"for targets that are GPUs: a CUDA toolkit, or {toolchain.EXTRA}"
        yield Check("cuda compiler", "note", str(error), advice)
    try:
        found = driver.devices()
        names = ", ".join(f"{each.gpu.name} ({each.gpu.arch})" for each in found)
        yield Check("gpu", "ok", f"{names}; driver for CUDA {driver.version()}")
    except driver.NoGpuError as error:
        yield Check("gpu", "note", f"{error}", "you can still compile for a GPU, by its name")


def _cache() -> Iterator[Check]:
    path = settings.cache_directory()
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK):
        yield Check("cache", "ok", str(path))
    else:
        advice = "set HYBRIDC_CACHE to a folder that you may write to"
        yield Check("cache", "note", f"{path} cannot be written to", advice)


def _log() -> Iterator[Check]:
    """The tuning log that compilations look into; a named one that cannot be read is none."""
    url = settings.log_url()
    if not access.default_exists():
        yield Check("tuning log", "ok", f"{url} does not exist yet")
        return
    try:
        with access.open_log(readonly=True) as log:
            yield Check("tuning log", "ok", f"{log.name}, {len(log)} records")
    except LogError as error:
        advice = "compilations take default schedules; see HYBRIDC_LOG"
        yield Check("tuning log", "note", str(error), advice)


def _temporary() -> Iterator[Check]:
    try:
        scratch.check_code()
        yield Check("temporary", "ok", tempfile.gettempdir())
    except InputError as error:
        found, _, advice = str(error).partition(": ")
        yield Check("temporary", "bad", found, advice)
    except OSError as error:
        yield Check("temporary", "bad", reason(error), "set TMPDIR to a folder that can be written")
