"""Windows and rows on a GPU whose axes are not whole multiples of what a block takes."""

from typing import Any

import pytest
from corpus_rows import ROWS
from cuda_emulator import needs_compiler
from cuda_kernels import NHWC, check, convolution, gpu
from kernel_builders import Builder, floats, op, operator

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.interfaces import NotApplicable

RULES = {plugin.name_of(type(rule)): rule for rule in pipeline.rules(device="cuda")}


def depthwise(x: Any, w: Any, b: Any) -> Any:
    made = op.nn.conv2d(
        x, w, groups=24, strides=(2, 1), padding=(1, 1), out_dtype="float32", **NHWC
    )
    return op.nn.relu(op.add(made, b))


def grouped(x: Any, w: Any) -> Any:
    return op.nn.conv2d(x, w, groups=6, padding=(1, 1), out_dtype="float32", **NHWC)


WINDOWS: dict[str, Builder] = {
    **{name: builder for name, builder in ROWS if name.startswith(("max pool", "average pool"))},
    "depthwise": operator(
        depthwise, ([2, 9, 9, 24], "float16"), ([24, 3, 3, 1], "float16"), ((24,), "float32")
    ),
    "grouped": operator(grouped, ([2, 9, 9, 24], "float16"), ([24, 3, 3, 4], "float16")),
}


@needs_compiler
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_those_of_the_unscheduled_kernel(name: str) -> None:
    device = gpu()
    (func,) = WINDOWS[name](device)
    assert check(RULES["cuda-windows"], func, device, points=0)
    assert isinstance(RULES["cuda-reduction"].match(func, device), NotApplicable)


@needs_compiler
def test_rows_that_no_block_divides_evenly() -> None:
    """Two heads of seven rows are fourteen rows, and no two of them begin and end with a head."""
    device = gpu()
    (func,) = operator(lambda x: op.nn.softmax(x, -1), *floats([1, 2, 7, 7]))(device)
    match: Any = RULES["cuda-softmax"].match(func, device)
    assert match.beside == (1,)
    assert check(RULES["cuda-softmax"], func, device, points=0)


@needs_compiler
def test_few_columns_of_a_convolution_read_along_its_channels() -> None:
    device = gpu()
    (func,) = convolution([1, 9, 9, 32], [3, 3, 3, 32], "float16", padding=(1, 1))(device)
    assert check(RULES["cuda-thin-matmul"], func, device, points=0)


def test_a_thin_product_whose_threads_read_apart_is_refused() -> None:
    device = gpu()
    (func,) = WINDOWS["depthwise"](device)
    found = RULES["cuda-thin-matmul"].match(func, device)
    assert isinstance(found, NotApplicable)
    assert "far from each other" in found.reason
