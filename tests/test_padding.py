"""Convolutions that read no padded copy, in every precision, against torch in float64."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from tvm.s_tir import SBlock
from tvm_ffi import structural_walk

from hybridc.compiler import pipeline, target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.interfaces import Context
from hybridc.compiler.kernels.products import contractions, packing
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.schedules.conv2d import Conv2d as Rule
from hybridc.schedules.products import image_padding

torch = pytest.importorskip("torch")

# Image N, H, W, C; window O, KH, KW; strides; padding top, left, bottom, right; dilation; groups.
CASES = {
    "one pixel": ((1, 1, 1, 4), (5, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "one tile a row": ((2, 7, 7, 8), (40, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "ragged tiles and columns": ((1, 5, 31, 6), (37, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "many tiles a row": ((1, 3, 61, 4), (16, 3, 5), (1, 1), (1, 2, 1, 2), (1, 1), 1),
    "strides": ((1, 11, 23, 4), (32, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    "wide strided window": ((1, 17, 45, 2), (24, 7, 7), (2, 2), (3, 3, 3, 3), (1, 1), 1),
    "padding on some sides": ((1, 6, 19, 4), (16, 2, 3), (1, 1), (0, 2, 1, 0), (1, 1), 1),
    "padding wider than the image": ((1, 2, 3, 4), (16, 3, 3), (1, 2), (4, 5, 4, 5), (1, 1), 1),
    "dilation": ((1, 9, 20, 4), (16, 3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 1),
    "groups": ((2, 5, 17, 8), (64, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 2),
    "groups of 1.5 vectors": ((1, 5, 17, 24), (72, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 3),
    "tiles of groups of 2.5": ((1, 3, 9, 16), (80, 3, 3), (2, 1), (1, 1, 1, 1), (1, 1), 2),
    "groups of part of a vector": ((1, 4, 21, 40), (60, 3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 5),
    "one row of groups": ((2, 1, 37, 24), (72, 1, 3), (1, 1), (0, 1, 0, 1), (1, 1), 3),
    "rows alone": ((1, 9, 6, 4), (16, 3, 1), (1, 1), (1, 0, 1, 0), (1, 1), 1),
    "columns alone": ((1, 2, 33, 4), (16, 1, 3), (1, 1), (0, 1, 0, 1), (1, 1), 1),
}
TYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "uint8": np.dtype(np.uint8),
}


def numbers(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    draw = np.random.default_rng(sum(shape))
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return draw.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return draw.standard_normal(shape).astype(dtype)


def convolved(x: Array, w: Array, case: Any) -> Array:
    """What torch makes of the case in float64, channels first."""
    _, _, strides, (top, left, bottom, right), dilation, groups = case
    image, window = (
        torch.from_numpy(array.astype(np.float64).transpose(0, 3, 1, 2)) for array in (x, w)
    )
    padded = torch.nn.functional.pad(image, (left, right, top, bottom))
    found = torch.nn.functional.conv2d(
        padded, window, stride=strides, dilation=dilation, groups=groups
    )
    return np.asarray(found)


@pytest.fixture
def however_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do without a copy for however few channels, which takes long only when it is run."""
    monkeypatch.setattr(image_padding, "_DEEP", 1)


@pytest.mark.parametrize(("channels", "copied"), [(3, True), (8, True), (16, False), (48, False)])
def test_few_channels_are_worth_a_copy(channels: int, copied: bool) -> None:
    packed, left = packing.pack_filter(numbers((8, 7, 7, channels), TYPES["float32"]), 1, 16)
    conv = Conv2d((2, 2), (3, 3, 3, 3), (1, 1), left, channels)
    func = contractions.conv2d((1, 20, 20, channels), packed, 8, conv, "float32")
    device = target.parse("cpu", threads=2)
    match: Any = Rule().match(func, device)
    made = Rule().schedule(match, Rule().default(match, device)).mod["main"]
    assert ("pad" in blocks(made)) == copied


@pytest.mark.usefixtures("however_few")
@pytest.mark.parametrize(
    ("dtype", "cpu"), [*((name, "cpu") for name in TYPES), ("float32", "avx2")]
)
@pytest.mark.parametrize("name", CASES)
def test_a_convolution_without_a_padded_copy(name: str, dtype: str, cpu: str) -> None:
    shape, (outputs, height, width), strides, padding, dilation, groups = CASES[name]
    device = target.parse(cpu, threads=2)
    x = numbers(shape, TYPES[dtype])
    inputs = shape[-1] // groups
    weights = TYPES[dtype] if dtype != "uint8" else np.dtype(np.int8)
    w = numbers((outputs, height, width, inputs), weights)
    group = packing.group_for(w.dtype.name, device)
    packed, left = packing.pack_filter(w, groups, device.lanes(), group)
    conv = Conv2d(strides, padding, dilation, left, inputs)
    func = contractions.conv2d(shape, packed, outputs, conv, dtype)
    rule = Rule()
    match: Any = rule.match(func, device)
    widened = dtype == "uint8" and not device.multiplies_bytes
    copied = inputs % group != 0 and not widened
    wanted = convolved(x, w, CASES[name])
    points = [rule.default(match, device)]
    if "tiles" in name:
        points.append({"rows": 4, "vectors": 2, "chunk": 1, "panels": 1})
    for point in points:
        scheduled = rule.schedule(match, point).mod
        assert ("pad" in blocks(scheduled["main"])) == copied
        lowered = pipeline.run(pipeline.parse("lower-bfloat16"), scheduled, Context(device))
        out = to_tensor(np.full([int(n) for n in func.params[-1].shape], 77, sum_type(dtype)))
        compile_kernel(lowered["main"], device)["main"](to_tensor(x), to_tensor(packed), out)
        got = to_numpy(out, np.dtype(sum_type(dtype))).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def sum_type(dtype: str) -> Any:
    """What products of a type are added up in."""
    return np.int32 if dtype == "uint8" else np.float32


def blocks(func: tvm.tirx.PrimFunc) -> set[str]:
    found: list[Any] = []
    structural_walk(func.body, (SBlock, found.append))
    return {str(block.name_hint) for block in found}
