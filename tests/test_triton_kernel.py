"""The kernel in Triton, by Triton's interpreter on the CPU, beside torch's product."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# The interpreter is chosen as Triton is imported.
_CODE = """
import torch
from itertools import product
from hybridc.compiler.backends import _triton_matmul

torch.manual_seed(0)
sizes = [(7, 96, 40), (130, 70, 65), (33, 128, 300), (257, 33, 129)]
for (rows, depth, columns), biased, relu, half in product(sizes, *[(False, True)] * 3):
    dtype = torch.float16 if half else torch.float32
    left, right = torch.randn(rows, depth).to(dtype), torch.randn(depth, columns).to(dtype)
    bias = torch.randn(columns).to(dtype) if biased else None
    made = torch.full((rows, columns), float("nan"), dtype=dtype)
    _triton_matmul.multiply(left, right, bias, made, relu)
    wanted = left.float() @ right.float() + (bias.float() if biased else 0)
    wanted = wanted.relu() if relu else wanted
    share = 2e-3 if half else 1e-5
    limit = share * float(wanted.abs().max())
    torch.testing.assert_close(made.float(), wanted, rtol=share, atol=limit)
"""


def test_products_are_those_of_torch() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", _CODE]
    subprocess.run(command, check=True, timeout=300, env=environment)
