"""Sessions in a child process that was forked after calls on several threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnx_models import FLOAT, build, node, noise

from hybridc.compiler import driver
from hybridc.compiler.configuration import plans

SCRIPT = """
import os, sys
import numpy
from hybridc import InferenceSession

def made(session):
    return session.run(None, {"x": numpy.ones((128, 256), "float32")})[0]

def code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

path = sys.argv[1]
session = InferenceSession(path, 2)
wanted = made(session)
child = os.fork()
if not child:
    assert numpy.array_equal(made(session), wanted)
    assert numpy.array_equal(made(InferenceSession(path, 2)), wanted)
    child = os.fork()
    assert numpy.array_equal(made(session), wanted)
    sys.exit(7 + code(child) if child else 1)
assert numpy.array_equal(made(session), wanted)
idle = os.fork()
if idle:
    sys.exit(code(child) + code(idle))
"""


WORKER = """
import os
from pathlib import Path

import tvm

from hybridc.compiler import settings

def alone():
    return {task.name for task in Path("/proc/self/task").iterdir()}

os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
settings.set_runtime_threads(2)
before = alone()
assert tvm.get_global_func("runtime.NumThreads")() == 2
(worker,) = alone() - before
seen = []
while True:  # as busy as other programs might be
    lines = Path(f"/proc/self/task/{worker}/status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    switches = [int(facts[f"{kind}_ctxt_switches"]) for kind in ("voluntary", "nonvoluntary")]
    assert sum(switches) < 1000
    seen = [*seen[-3:], (facts["State"].split()[0], *switches)]
    if len(seen) == 4 and set(seen) == {("S", *switches)}:
        break
"""
FORKING = """
import os, threading

from hybridc.compiler import settings
from hybridc.compiler.hardware.workers import workers

settings.set_runtime_threads(2)
pool = workers()

def forks():
    for _ in range(2):
        pool.resize(2)
        child = os.fork()
        assert pool.count() == (2 if child else 1)
        if not child:
            grandchild = os.fork()
            pool.resize(2)
            assert pool.count() == 2
            os._exit(3 if not grandchild else 4 + status(grandchild))
        assert status(child) == 7
    done.append(1)

def status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

done = []
forks()
thread = threading.Thread(target=forks, daemon=True)
thread.start()
while thread.is_alive() and len(done) < 2:
    thread.join(1)
os._exit(len(done))  # nobody waits for the workers
"""


def run(script: str, *arguments: Path, **variables: str) -> int:
    """How a process ends in which TVM's workers are as a user has them, but for some variables."""
    usual = {name: v for name, v in os.environ.items() if name != "TVM_THREAD_POOL_SPIN_COUNT"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=False, timeout=300, env=usual | variables).returncode


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="takes two CPUs")
def test_a_fork_has_workers_of_its_own_and_ends(tmp_path: Path) -> None:
    """By exits of all kinds, of which one joins its workers, and of a fork of a fork.

    Also where workers sleep at once.
    """
    product = node("MatMul", "x w", "y")  # large enough for several threads
    inputs, outputs = [("x", FLOAT, [128, 256])], [("y", FLOAT, None)]
    model = build([product], inputs, outputs, {"w": noise(256, 512)})
    path = tmp_path / "m.hyb"
    driver.compile_source(model, plans.Options(verify="off", threads=2)).artifact.save(path)
    assert run(SCRIPT, path) == 8
    assert run(SCRIPT, path, TVM_THREAD_POOL_SPIN_COUNT="0") == 8


def test_a_worker_sleeps_soon_beside_who_computes() -> None:
    """Whoever waits for its end waits until it sleeps; each look lets others go first."""
    assert run(WORKER) == 0


def test_who_forks_waits_for_no_worker_that_looks_out_for_work() -> None:
    """These look out for longer than the test may take."""
    assert run(FORKING, TVM_THREAD_POOL_SPIN_COUNT=str(2**31 - 1)) == 2
