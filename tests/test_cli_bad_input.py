"""What is wrong with a call is said at once, not after the seconds in which TVM is imported."""

import json
import subprocess
import sys
from pathlib import Path

# The file exists and ends in .onnx, so that it is not what is complained of.
CALLS = {
    "tune nosuch.onnx": "no such file",
    "tune here.onnx nosuch.onnx": "nosuch.onnx: no such file",
    "tune notes.txt": "ends in .onnx or .pt2",
    "tune here.onnx --strategy nosuch": "no strategy is named 'nosuch'",
    "tune here.onnx --strategy evolutionry": "did you mean 'evolutionary'",
    "tune here.onnx --strategy evolutionary{population=x}": "population needs int",
    "tune here.onnx --strategy evolutionary{population=-1}": "population must be 2 or more",
    "tune here.onnx --strategy evolutionary{nosuch=1}": "nosuch",
    "tune here.onnx --strategy random,genetic": "bandit{arms=random+genetic}",
    "tune here.onnx --workers 100000": "this process may use only",
    "compile here.onnx --strategy parallel --workers 100000": "this process may use only",
    "compile here.onnx -o nosuch/a.hyb": "there is no folder nosuch",
    "compile here.onnx --report .": "this is a folder",
    "compile here.onnx -o /proc/a.hyb": "-o /proc/a.hyb: cannot write there: ",
    "compile here.onnx -o here.onnx": "-o here.onnx: this is MODEL; name another file",
    "compile here.onnx -o x/../here.onnx": "-o x/../here.onnx: this is MODEL",
    "compile here.onnx -o a.hyb --report a.hyb": "--report a.hyb: this is -o; name another file",
    "compile here.onnx --report here.onnx": "--report here.onnx: this is MODEL",
    "compile here.onnx -o d.npz --calibration d.npz": "-o d.npz: this is --calibration; name",
    "compile here.onnx -o d.npz --validation d.npz": "this is --validation; name another file",
    "compile here.onnx -o d.toml --config d.toml": "-o d.toml: this is --config; name another",
    "compile here.onnx -o d.npz --plugin d.npz": "-o d.npz: this is --plugin; name another file",
    "compile here.onnx --report d.npz --lock d.npz": "--report d.npz: this is --lock; name another",
    "compile here.onnx --trace here.onnx": "--trace here.onnx: this is MODEL; name another file",
    "compile here.onnx -o a.hyb --trace a.hyb": "--trace a.hyb: this is -o; name another file",
    "compile here.onnx --report a --trace a": "--trace a: this is --report; name another file",
    "tune here.onnx --trace here.onnx": "--trace here.onnx: this is MODEL; name another file",
    "report a.hyb -o a.hyb": "--output a.hyb: this is ARTIFACT",
    "reduce here.onnx --fails false -o here.onnx": "-o here.onnx: this is MODEL",
    "bisect here.onnx -o here.onnx": "-o here.onnx: this is MODEL",
    "compile here.onnx --plugin x": "--plugin x: not a file",
    "compile here.onnx -o /dev/null": "-o /dev/null: not a regular file",
    "bisect here.onnx -o /proc/a.py": "-o /proc/a.py: cannot write there: ",
    "bisect here.onnx -o nosuch/a.py": "there is no folder nosuch",
    "reduce here.onnx --fails false -o nosuch/a.onnx": "there is no folder nosuch",
    "opt --pipeline legalize here.onnx -o nosuch/ir.py": "there is no folder nosuch",
    "compile here.onnx --min-accuracy 0.9": "write it like cosine=0.999",
    "tune here.onnx --budget soon": "'soon' is not a duration",
    "tune here.onnx --shape x": "NAME=1x3x224x224",
    "tune here.onnx --trials 0": "--trials",
    "compile nosuch.onnx": "no such file",
    "compile here.onnx --strategy cascad": "no strategy is named 'cascad'; did you mean 'cascade'",
    "compile here.onnx --strategy cascade{x=1}": "x",
    "compile here.onnx --mode nural": "--mode",
    "compile here.onnx --mode dynamic": "--budget 10min",
    "compile here.onnx --components nural": "did you mean 'neural'",
    "compile here.onnx --components precision --trials 2": "neural is not among the components",
    "compile here.onnx --weights neural=-1": "0 or more",
    "compile here.onnx --weights nural=1": "did you mean 'neural'",
    "compile here.onnx --levels grap": "graph",
    "compile here.onnx --threshold 2": "threshold",
    "compile here.onnx --budget soon": "'soon' is not a duration",
    "compile here.onnx --config nosuch.toml": "nosuch.toml: cannot be read",
    "compile here.onnx --config notes.txt": "ends in .toml, .yaml or .yml",
    "compile here.onnx --config wrong.toml": "wrong.toml: no option is named 'stratgy'; did you",
    "compile here.onnx --config broken.toml": "not valid TOML",
    "compile here.onnx --config broken.yaml": "not valid YAML",
    "compile here.onnx --config list.yaml": "expected options by name",
    "compile here.onnx --trials 3 --budget soon": "'soon' is not a duration",
    "compile here.onnx --max-latency soon": "'soon' is not a duration",
    "compile here.onnx --min-accuracy x=1": "no accuracy metric",
    "compile here.onnx --shape x": "NAME=1x3x224x224",
    "compile here.onnx --calibration nosuch.npz": "nosuch.npz: no such file",
    "log explain-miss nosuch.onnx": "no such file",
    "log stats --model nosuch.onnx": "no such file",
    "log import notes.txt": "a log is exchanged as",
    "log ls --log nosuch.sqlite": "there is no tuning log",
    "log show zz --log notes.txt": "notes.txt is not a tuning log",
    "run nosuch.hyb": "nosuch.hyb: no such file",
    "run notes.txt": "not a hybridc artifact",
    "report nosuch.hyb": "nosuch.hyb: no such file",
    "bench nosuch.hyb": "nosuch.hyb: no such file",
    "bench nosuch.onnx": "no such file",
    "inspect nosuch.onnx": "no such file",
    "inspect nosuch.hyb": "nosuch.hyb: no such file",
    "opt --pipeline legalize nosuch.py": "nosuch.py",
    "passes nosuch": "no pass or pipeline is named",
}
CODE = """
import contextlib, io, json, sys
from hybridc.cli.main import run
found = []
for call in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = run(call.split())
    found.append([code, said.getvalue(), "tvm" in sys.modules])
json.dump(found, sys.stdout)
"""


def test_bad_input_is_told_before_anything_slow_is_imported(tmp_path: Path) -> None:
    (tmp_path / "here.onnx").write_bytes(b"")
    (tmp_path / "x").mkdir()
    (tmp_path / "notes.txt").write_text("something else")
    (tmp_path / "d.npz").write_bytes(b"")
    (tmp_path / "d.toml").write_bytes(b"")
    (tmp_path / "wrong.toml").write_text('stratgy = "fusion"')
    (tmp_path / "broken.toml").write_text("strategy = ")
    (tmp_path / "broken.yaml").write_text("strategy: [")
    (tmp_path / "list.yaml").write_text("- strategy")
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input=json.dumps([*CALLS]),
        cwd=tmp_path,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    for (call, wanted), (code, said, slow) in zip(
        CALLS.items(), json.loads(done.stdout), strict=True
    ):
        assert code == 2, (call, said)
        assert wanted in said, (call, said)
        assert said.count("\n") == 1, (call, said)
        assert not slow, call
