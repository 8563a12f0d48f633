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


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="takes two CPUs")
def test_a_fork_has_workers_of_its_own_and_ends(tmp_path: Path) -> None:
    """By exits of all kinds, of which one joins its workers, and of a fork of a fork."""
    product = node("MatMul", "x w", "y")  # large enough for several threads
    inputs, outputs = [("x", FLOAT, [128, 256])], [("y", FLOAT, None)]
    model = build([product], inputs, outputs, {"w": noise(256, 512)})
    path = tmp_path / "m.hyb"
    driver.compile_source(model, plans.Options(verify="off", threads=2)).artifact.save(path)
    # Workers that look out for work for no time at all would sleep as they are forked.
    usual = {name: v for name, v in os.environ.items() if name != "TVM_THREAD_POOL_SPIN_COUNT"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, path], check=False, timeout=300, env=usual)
    assert done.returncode == 8
