"""Memory that a process may still take, and what is refused before it is taken."""

import resource
from pathlib import Path

import pytest
from onnx_models import FLOAT, build, node, relu

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError
from hybridc.compiler.hardware import room
from hybridc.compiler.model import TensorSpec, random_feed

MACHINE = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    5000 kB\nSwapFree: 1000 kB\n"}
V2 = {
    "proc/self/cgroup": "0::/box\n",
    "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "sys/fs/cgroup/box/memory.max": "4000000\n",
    "sys/fs/cgroup/box/memory.current": "1000000\n",
    "sys/fs/cgroup/box/memory.stat": "anon 5\ninactive_file 200000\nactive_file 1\n",
}
AROUND = {"sys/fs/cgroup/memory.max": "100", "sys/fs/cgroup/memory.current": "9"}
V1 = {
    "proc/self/cgroup": "4:memory:/box\n3:cpu:/\n",
    "proc/self/mountinfo": "36 24 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "2000000\n",
    "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "500000\n",
}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (MACHINE, 6000 * 1024),
        ({**MACHINE, **V2}, 3200001),
        ({**MACHINE, **V2, "sys/fs/cgroup/box/memory.max": "max\n"}, 6000 * 1024),
        ({**MACHINE, **V2, **AROUND}, 91),
        ({**MACHINE, **V1}, 1500000),
        ({}, None),
    ],
)
def test_the_tightest_limit_counts(
    files: dict[str, str], wanted: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert room.left(tmp_path) == wanted


def test_a_limit_of_the_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("VmSize:\t  300 kB\nVmData:\t 100 kB\n")
    found = {resource.RLIMIT_AS: (2**20, -1), resource.RLIMIT_DATA: (-1, -1)}
    monkeypatch.setattr(resource, "getrlimit", found.__getitem__)
    assert room.left(tmp_path) == 2**20 - 300 * 1024


def test_this_machine_has_some_room() -> None:
    assert 0 < (room.left() or 1) < 2**60
    room.check(1, "nothing")


def test_huge_inputs_are_refused_before_they_are_drawn() -> None:
    with pytest.raises(InputError, match=r"random inputs take .* GB of memory, .*--shape"):
        random_feed([TensorSpec("x", (2**50,), "int8")])
    wide = Options(log=None)
    with pytest.raises(InputError, match=r"at n=2000000000, m=2000 take|the reference takes"):
        driver.compile_source(relu(["n", "m"]), wide, {"n": "1..2000000000", "m": "1..2000"})


@pytest.mark.parametrize("verify", ["end", "off"])
def test_a_product_that_fits_nowhere_is_refused(
    verify: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the reference computes it and, where that does not run, before the artifact does."""
    monkeypatch.setattr(room, "left", lambda: 10**6)
    nodes = [node("MatMul", "a b", "c"), node("ReduceSum", "c", "y", keepdims=0)]
    given = [("a", FLOAT, [1000, 4]), ("b", FLOAT, [4, 1000])]
    model = build(nodes, given, [("y", FLOAT, None)])
    what = "compute float32.1000,1000., the reference" if verify == "end" else "a call of the comp"
    options = Options(verify=verify, timed=True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"{what}.* MB of memory, and this process can have 1 MB"):
        driver.compile_source(model, options)
    options = Options(verify="off")
    assert driver.compile_source(model, options).report.memory is not None
