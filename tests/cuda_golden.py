"""Goldens of CUDA rules: what each writes for one small kernel, in `tests/cuda/NAME.txt`.

A golden has the launches, TIR as it leaves the rule, the CUDA C++ of the kernels without the
prelude, and those instructions of their PTX for which a rule is there.  It is compared, and written
anew by `pytest tests/test_cuda_golden.py --update-golden`; that the code computes the right thing
is what `test_cuda_rules.py` and its neighbours hold.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm
from cuda_emulator import source_of
from cuda_kernels import gpu, product
from kernel_builders import Builder, floats, op, operator
from kernel_corpus import RECURRENT
from test_cuda_attention import attention
from test_cuda_weights import made
from test_cuda_windows import WINDOWS

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.interfaces import Point
from hybridc.compiler.kernels.kernel_cost import MULTIPLY
from hybridc.compiler.target import Target

FOLDER = Path(__file__).parent / "cuda"
# What a rule is there for: copies ahead, tensor cores, loads of them, shuffles, wide accesses; and
# spills, which no default has.
_TELLING = re.compile(
    r"cp\.async|(?<!w)(?:wg)?mma|ldmatrix|shfl|dp4a|fence|bar\.|\.v[24]\.|\.local\.|atom|red\."
)
_RULES = {plugin.name_of(type(rule)): rule for rule in pipeline.rules(device="cuda")}


@dataclass(frozen=True)
class Case:
    """A kernel for a rule (the case's name), and the knobs that differ from the default."""

    builder: Builder
    knobs: Point = field(default_factory=dict[str, int])
    arch: str = "sm_90a"
    rule: str = ""


def packed(rows: int, dtype: str = "float32", columns: int = 32) -> Builder:
    """A product with weights of 4 bits; of many rows on tensor cores."""
    func, _, _ = made((rows,), 64, columns, 4, 32, dtype)
    rounded = rows > 1 and dtype == "float32"
    return lambda _: [func.with_attr(MULTIPLY, "tf32") if rounded else func]


_TILE = {"rows": 32, "columns": 32, "warp_rows": 32, "warp_columns": 16, "stages": 2, "splits": 1}


CASES: dict[str, Case] = {
    "cuda-attention": Case(
        attention((1, 1), (16, 64, 16, 16)),
        {"rows": 16, "warp_rows": 16, "columns": 64, "key_warps": 1, "splits": 1, "stages": 2},
    ),
    "cuda-recurrence": Case(dict(RECURRENT)["gated recurrent units, reversed"]),
    "cuda-wgmma-matmul": Case(
        product([64, 128], [128, 64], "float16"), {"rows": 64, "columns": 64, "stages": 2}
    ),
    "cuda-tensor-matmul": Case(
        product([32, 128], [128, 32], "float16"),
        {**_TILE, "splits": 2},
        "sm_80",
    ),
    "packed-weights-of-tiles": Case(packed(32), _TILE, "sm_80", "cuda-tensor-matmul"),
    "packed-weights-of-few-rows": Case(packed(1), {"unroll": 1}, rule="cuda-thin-matmul"),
    "packed-weights-by-few-halves": Case(
        packed(1, "float16"), {"unroll": 1}, rule="cuda-thin-matmul"
    ),
    "packed-weights-by-halves": Case(
        packed(64, "float16", 64),
        {"rows": 64, "columns": 64, "stages": 3, "splits": 1},
        rule="cuda-wgmma-matmul",
    ),
    "cuda-matmul": Case(
        product([32, 64], [64, 32]),
        {"rows": 32, "columns": 32, "warp_rows": 16, "warp_columns": 16, "stages": 2, "splits": 1},
        "sm_80",
    ),
    "cuda-windows": Case(WINDOWS["depthwise"]),
    "cuda-thin-matmul": Case(product([1, 64], [64, 32], "float16"), {"unroll": 1}),
    "cuda-softmax": Case(operator(lambda x: op.nn.softmax(x, -1), *floats([8, 40]))),
    "cuda-layer-norm": Case(
        operator(lambda x, g, b: op.nn.layer_norm(x, g, b, [-1]), *floats([8, 64], [64], [64]))
    ),
    "cuda-reduction": Case(operator(lambda x: op.sum(x, [1]), *floats([8, 100]))),
    "cuda-transpose": Case(operator(lambda x: op.permute_dims(x, [1, 0]), *floats([70, 40]))),
    "cuda-elementwise": Case(
        operator(lambda x: op.nn.relu(op.exp(x)), *floats([1 << 20])), {"threads": 256}
    ),
    "cuda-fallback": Case(operator(lambda x: op.sum(op.exp(x), [1]), *floats([8, 100]))),
}


def scheduled(name: str) -> tuple[Any, Target]:
    """The case's kernel as the rule schedules it."""
    case = CASES[name]
    rule = _RULES[case.rule or name]
    device = gpu(case.arch)
    (func,) = case.builder(device)
    match: Any = rule.match(func, device)
    point = rule.canonical(match, {**rule.default(match, device), **case.knobs})
    return rule.schedule(match, point).mod["main"], device


def text_of(name: str) -> tuple[str, str]:
    """The golden of a rule: all but its last line, and that, which needs nvcc."""
    func, device = scheduled(name)
    source, found = source_of(func, device)
    launches = [
        f"# launch: {launch.kernel}, {'x'.join(map(str, launch.grid))} blocks of"
        f" {'x'.join(map(str, launch.threads))} threads, {launch.shared} bytes of shared memory"
        for launch in found
    ]
    tir = tvm.IRModule({"main": func}).script()
    kept = [line.rstrip() for line in tir.splitlines() if not line.startswith("# ")]
    kernels = source[source.index('extern "C" __global__') :].strip()
    parts = [f"# rule: {name}, {device.device.arch}", *launches]
    parts += ["# TIR:", "\n".join(kept).strip(), "# CUDA C++:", kernels]
    return "\n".join(parts), f"# PTX: {', '.join(_instructions(source, device.device.arch))}"


def _instructions(source: str, arch: str) -> list[str]:
    """The telling instructions of a source's PTX, each once."""
    with tempfile.TemporaryDirectory() as folder:
        unit, out = Path(folder, "kernel.cu"), Path(folder, "kernel.ptx")
        unit.write_text(source)
        command = ["nvcc", "-ptx", "-O3", "-std=c++17", f"-arch={arch}", str(unit), "-o", str(out)]
        subprocess.run(command, check=True, timeout=300)
        words = (
            line.split()[0].rstrip(";") for line in out.read_text().splitlines() if line.split()
        )
        plain = (word for word in words if "." in word and not word.startswith("."))
        return sorted({word for word in plain if _TELLING.search(word)}) or ["none"]
