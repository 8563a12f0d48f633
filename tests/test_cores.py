"""How many threads to run, on machines that are folders: SMT, affinity, cgroup versions 1 and 2."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hybridc.compiler.hardware import cores, host

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
)
FOLDER = "sys/fs/cgroup"


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def smt(count: int, file: str = "core_cpus_list") -> dict[str, str]:
    """CPUs n and n + count share core n, as Linux numbers them."""
    place = "sys/devices/system/cpu/cpu{}/topology/" + file
    return {place.format(cpu): f"{cpu % count},{cpu % count + count}\n" for cpu in range(2 * count)}


def usable(root: Path, allowed: int = 8) -> int:
    return cores.usable(root, frozenset(range(allowed)))


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    assert usable(tmp_path) == 8
    assert cores.usable(tmp_path, frozenset()) == 1


@pytest.mark.parametrize("file", ["core_cpus_list", "thread_siblings_list"])
def test_hyper_threads_of_a_core_count_once(file: str, tmp_path: Path) -> None:
    root = machine(tmp_path, smt(4, file))
    assert usable(root, 8) == 4
    assert cores.usable(root, frozenset({0, 4})) == 1  # both threads of one core
    assert cores.usable(root, frozenset({0, 1, 5})) == 2
    assert cores.usable(root, frozenset({4, 5, 6})) == 3  # not the first threads, but whole cores


def test_siblings_as_a_range(tmp_path: Path) -> None:
    place = "sys/devices/system/cpu/cpu{}/topology/core_cpus_list"
    root = machine(tmp_path, {place.format(cpu): "0-3\n" for cpu in range(4)})
    assert usable(root, 4) == 1


@pytest.mark.parametrize(
    ("quota", "threads"),
    [
        ("max 100000", 8),
        ("400000 100000", 4),
        ("250000 100000", 2),  # three threads would stand still for a sixth of the time
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("nonsense", 8),
        ("", 8),
        ("0 0", 8),
        ("100000", 8),
    ],
)
def test_a_quota_of_version_2(quota: str, threads: int, tmp_path: Path) -> None:
    """A container of its own cgroup namespace: its group is the root of what it sees."""
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2}
    assert usable(machine(tmp_path, {**files, f"{FOLDER}/cpu.max": quota})) == threads


def test_the_tightest_of_nested_groups_holds(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/user.slice/app.scope\n",
        "proc/self/mountinfo": V2,
        f"{FOLDER}/user.slice/cpu.max": "300000 100000\n",
        f"{FOLDER}/user.slice/app.scope/cpu.max": "max 100000\n",
        f"{FOLDER}/other.slice/cpu.max": "100000 100000\n",
    }
    assert usable(machine(tmp_path, files)) == 3


@pytest.mark.parametrize("group", ["/docker/abc", "/"])
def test_a_quota_of_version_1(group: str, tmp_path: Path) -> None:
    folder = f"{FOLDER}/cpu,cpuacct/{group.strip('/')}"
    files = {
        "proc/self/cgroup": f"5:memory:{group}\n4:cpu,cpuacct:{group}\n1:name=systemd:/\n",
        "proc/self/mountinfo": V1,
        f"{folder}/cpu.cfs_quota_us": "200000\n",
        f"{folder}/cpu.cfs_period_us": "100000\n",
    }
    assert usable(machine(tmp_path, files)) == 2
    (tmp_path / folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert usable(tmp_path) == 8


def test_a_container_that_sees_the_hosts_name_of_its_group(tmp_path: Path) -> None:
    """Docker with cgroups of version 1: the mount shows the group alone, at its root."""
    mount = "32 23 0:28 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n"
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n",
        "proc/self/mountinfo": mount,
        f"{FOLDER}/cpu/cpu.cfs_quota_us": "300000",
        f"{FOLDER}/cpu/cpu.cfs_period_us": "100000",
    }
    assert usable(machine(tmp_path, files)) == 3
    (tmp_path / "proc/self/cgroup").write_text("4:cpu,cpuacct:/elsewhere\n")
    assert usable(tmp_path) == 3


def test_a_quota_and_hyper_threads(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2}
    root = machine(tmp_path, {**smt(4), **files, f"{FOLDER}/cpu.max": "600000 100000"})
    assert usable(root, 8) == 4
    (root / FOLDER / "cpu.max").write_text("300000 100000")
    assert usable(root, 8) == 3


@pytest.mark.parametrize("text", ["x", "0-", "3-1", "a-b", "\n", "-1"])
def test_damaged_lists_count_as_cores(text: str, tmp_path: Path) -> None:
    place = "sys/devices/system/cpu/cpu{}/topology/core_cpus_list"
    root = machine(tmp_path, {place.format(cpu): text for cpu in range(8)})
    assert usable(root) == 8


def test_this_process_keeps_to_its_affinity() -> None:
    """Sessions run on the CPUs that the process was given, and leave it those that it had."""
    cpu = max(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{cpu}}})\n"
        "from hybridc.compiler import settings\nfrom hybridc.compiler.hardware import host\n"
        "assert host.cores() == 1\n"
        "import tvm, glob\n"
        "settings.set_runtime_threads(2)\n"
        "assert tvm.get_global_func('runtime.NumThreads')() == 2\n"
        "for task in glob.glob('/proc/self/task/*'):\n"
        f"    assert os.sched_getaffinity(int(task.split('/')[-1])) == {{{cpu}}}, task\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_this_machine() -> None:
    assert 1 <= host.cores() <= len(host.allowed_cpus())
