"""The only place that reads or writes environment variables.

`HYBRIDC_CACHE` moves the cache directory, `HYBRIDC_LOG` names the tuning log (a path or a URL), and
`HYBRIDC_DEBUG=1` lets tracebacks through, as `--debug`.  `CUDA_HOME` says where the CUDA toolkit
is.
"""

import os
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

_NO_HOME = "/nonexistent"  # as Debian calls it
_AS_SOURCE = "TVM_COMPILE_FORCE_FALLBACK"
_BY_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
_LOOKS = "TVM_THREAD_POOL_SPIN_COUNT"
# To look and yield the CPU takes 0.3 us on an idle machine, so this is a third of a millisecond:
# most of what lies between two parallel loops is shorter.  With 100, networks were 1 to 2 % slower.
_FEW_LOOKS = "1000"


def cache_directory() -> Path:
    """Where measured target facts and logs live; created when first written to."""
    if path := os.environ.get("HYBRIDC_CACHE"):
        return Path(path)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "hybridc"


def provide_home() -> None:
    """Name a home that does not exist for a user without one, as in a container.

    TVM asks for it as it is imported, and ends there.  No folder in /tmp takes its place: another
    user could put artifacts there, which are code.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = _NO_HOME


def look_less() -> None:
    """Let TVM's workers look out for the next call less often before they sleep.

    They look 300 000 times, and yield the CPU each time.  On an idle machine that takes a tenth of
    a second; where others compute, Linux 6.18 has each of them go first for milliseconds, and a
    thread or a process that ends waits for its workers: for minutes.  TVM asks once, when the first
    worker starts.
    """
    os.environ.setdefault(_LOOKS, _FEW_LOOKS)


def log_url() -> str:
    """The tuning log that is used where none is named: a file in the cache directory, or a URL."""
    return os.environ.get("HYBRIDC_LOG") or str(cache_directory() / "tuning-log.sqlite")


def debug() -> bool:
    """Whether errors shall keep their traceback."""
    return os.environ.get("HYBRIDC_DEBUG", "") not in ("", "0")


def cuda_home() -> Path | None:
    """Where the user says that the CUDA toolkit is (`CUDA_HOME`, else `CUDA_PATH`)."""
    path = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return Path(path) if path else None


def cuda_kept_as_source() -> AbstractContextManager[None]:
    """Have TVM leave the CUDA C++ that it generates as it is, whether or not a GPU is here.

    Where its runtime for CUDA is loaded it would compile it at once, by its own compiler and flags.
    """
    return _switched_on(_AS_SOURCE)


def gpus_asked_of_nvml() -> AbstractContextManager[None]:
    """Have torch ask NVML, and not the driver, whether a GPU is here: that starts no driver."""
    return _switched_on(_BY_NVML)


@contextmanager
def _switched_on(name: str) -> Generator[None]:
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def requested_threads() -> int | None:
    """Threads that the user asked of TVM, if any; anything but a positive number is ignored."""
    text = os.environ.get("TVM_NUM_THREADS", "")
    return int(text) if text.isdigit() and int(text) > 0 else None


def set_runtime_threads(threads: int) -> None:
    """Tell TVM's thread pools their size, and not to bind their threads.

    Without this TVM takes half of the cores wherever it assumes hyper-threads, and binds thread
    number n to CPU number n: outside of the affinity that this process was given, and on the CPUs
    that the next process binds its threads to as well.
    """
    os.environ.update(_runtime(threads))


def visible_gpus() -> tuple[str, ...] | None:
    """The GPUs that this process may use, by `CUDA_VISIBLE_DEVICES`; None if it does not say."""
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def environment(threads: int, gpu: str | None = None, folder: Path | None = None) -> dict[str, str]:
    """The environment for a child process whose TVM shall take so many threads, and one GPU.

    Temporary files of its own, and of the compilers that it calls, go to the folder: a process that
    is killed removes none of them.
    """
    seen = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    apart = {} if folder is None else {"TMPDIR": str(folder)}
    return {**os.environ, **_runtime(threads), **seen, **apart}


def _runtime(threads: int) -> dict[str, str]:
    bind = os.environ.get("TVM_BIND_THREADS", "0")
    return {"TVM_NUM_THREADS": str(threads), "TVM_BIND_THREADS": bind}
