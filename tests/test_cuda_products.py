"""Products on a GPU that are divided along the depth, have few rows, or are of bytes."""

from typing import Any

import pytest
from cuda_emulator import needs_compiler, run, source_of
from cuda_kernels import NHWC, check, close, convolution, feed, gpu, product, reference
from kernel_builders import Builder, op, operator
from tvm import relax

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.cuda import launches
from hybridc.compiler.interfaces import NotApplicable

RULES = {plugin.name_of(type(rule)): rule for rule in pipeline.rules(device="cuda")}


def bytes_product(left: Any, right: Any, kinds: tuple[str, str] = ("uint8", "int8")) -> Builder:
    """A product of bytes into int32, requantised behind."""

    def build(x: Any, y: Any) -> Any:
        return _requantised(op.matmul(x, y, out_dtype="int32"))

    return operator(build, (left, kinds[0]), (right, kinds[1]))


def bytes_convolution(image: Any, weight: Any, **how: Any) -> Builder:
    """A convolution of bytes, channels last, requantised behind."""

    def build(x: Any, w: Any) -> Any:
        return _requantised(op.nn.conv2d(x, w, out_dtype="int32", **NHWC, **how))

    return operator(build, (image, "uint8"), (weight, "int8"))


def _requantised(total: Any) -> Any:
    wide = op.multiply(op.astype(total, "float32"), relax.const(0.037, "float32"))
    return op.astype(op.clip(op.round(wide), 0, 255), "uint8")


def _residual(kind: str, rows: int = 40, depth: int = 64) -> Builder:
    def build(x: Any, w: Any, b: Any, r: Any) -> Any:
        total = op.add(op.matmul(x, w, out_dtype="float32"), b)
        return op.add(op.astype(total, kind), r)

    shapes = [(shape, kind) for shape in ([rows, depth], [depth, 72])]
    return operator(build, *shapes, ([72], "float32"), ([rows, 72], kind))


THIN: dict[str, Builder] = {
    "row by matrix": product([1, 200], [200, 96], "float16"),
    "row by matrix, fp32": product([1, 200], [200, 96]),
    "rows by matrix along the depth": convolution([1, 1, 3, 264], [80, 1, 1, 264], "bfloat16"),
    "matrix by vector": product([75, 130], [130, 1]),
    "batches, odd": product([3, 5, 19], [3, 19, 45], "float16"),
    "bytes": bytes_product([2, 200], [200, 96]),
    "bytes along the depth": bytes_convolution([1, 1, 3, 272], [80, 1, 1, 272]),
    "signed bytes, odd": bytes_product([3, 50], [50, 21], ("int8", "int8")),
}
TOGETHER: dict[str, Builder] = {
    "with a residual": _residual("float16", 2, 1024),
    "of bytes": bytes_product([1, 1500], [1500, 32]),
}
BYTES: dict[str, Builder] = {
    "dense": bytes_product([40, 96], [96, 72]),
    "dense, signed": bytes_product([33, 50], [50, 20], ("int8", "int8")),
    "convolution": bytes_convolution([1, 9, 9, 32], [24, 3, 3, 32], padding=(1, 1)),
}
DIVIDED: dict[str, tuple[str, Builder]] = {
    "fp16": ("cuda-tensor-matmul", product([24, 600], [600, 40], "float16")),
    "fp32": ("cuda-matmul", product([2, 20, 333], [2, 333, 18])),
    "convolution": (
        "cuda-tensor-matmul",
        convolution([1, 7, 7, 64], [16, 3, 3, 64], "float16", padding=(1, 1)),
    ),
    "bytes": ("cuda-tensor-matmul", bytes_product([20, 1024], [1024, 16])),
}


@needs_compiler
@pytest.mark.parametrize(
    "name",
    ["row by matrix", "rows by matrix along the depth", "batches, odd", "bytes along the depth"],
)
def test_thin_products_are_those_of_the_unscheduled_kernel(name: str) -> None:
    device = gpu()
    (func,) = THIN[name](device)
    assert check(RULES["cuda-thin-matmul"], func, device, points=0)
    assert isinstance(RULES["cuda-tensor-matmul"].match(func, device), NotApplicable)


@needs_compiler
@pytest.mark.parametrize("name", TOGETHER)
def test_blocks_of_a_cluster_divide_the_depth_of_a_thin_product(name: str) -> None:
    device, rule = gpu(), RULES["cuda-thin-matmul"]
    (func,) = TOGETHER[name](device)
    match: Any = rule.match(func, device)
    assert rule.default(match, device)["splits"] > 1
    assert check(rule, func, device, points=0)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", THIN)
def test_thin_products_at_many_points(name: str) -> None:
    device = gpu("sm_80")
    (func,) = THIN[name](device)
    assert check(RULES["cuda-thin-matmul"], func, device, points=5)


@needs_compiler
@pytest.mark.parametrize("name", ["dense", "convolution"])
def test_products_of_bytes_are_exact(name: str) -> None:
    device = gpu()
    (func,) = BYTES[name](device)
    assert check(RULES["cuda-tensor-matmul"], func, device, points=0)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", BYTES)
def test_products_of_bytes_at_many_points(name: str) -> None:
    device = gpu("sm_80")
    (func,) = BYTES[name](device)
    assert check(RULES["cuda-tensor-matmul"], func, device, points=5)


def test_bytes_of_few_rows_are_multiplied_four_at_a_time() -> None:
    device = gpu()
    (func,) = THIN["bytes along the depth"](device)
    rule = RULES["cuda-thin-matmul"]
    match: Any = rule.match(func, device)
    source, _ = source_of(rule.schedule(match, rule.default(match, device)).mod["main"], device)
    assert "hybridc_dot_uint8_int8" in source[source.index("__global__") :]


def test_bytes_need_instructions() -> None:
    device = gpu("sm_75")
    (func,) = BYTES["dense"](device)
    found = RULES["cuda-tensor-matmul"].match(func, device)
    assert isinstance(found, NotApplicable)
    assert "does not multiply uint8_int8" in found.reason


@needs_compiler
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", DIVIDED)
def test_blocks_that_divide_the_depth_add_up(name: str, arch: str) -> None:
    """By another launch, or as a cluster."""
    rule_name, builder = DIVIDED[name]
    rule, device = RULES[rule_name], gpu(arch)
    (func,) = builder(device)
    match: Any = rule.match(func, device)
    arrays = feed(func)
    wanted = reference(func, arrays)
    point = rule.canonical(match, {**rule.default(match, device), "splits": 4})
    assert point["splits"] > 1
    made = rule.schedule(match, point).mod["main"]
    assert len(launches.of_kernel(made, device)) == (2 if arch == "sm_80" else 1)
    for got, right in zip(run(made, arrays, device), wanted, strict=True):
        close(got, right, 1e-5, f"{point}")


def test_the_depth_is_divided_where_tiles_are_few() -> None:
    """One image's transformer leaves most of an H100 without a tile; a batch of them does not."""
    device, rule = gpu("nvidia/h100"), RULES["cuda-tensor-matmul"]
    few, many = (
        rule.default(rule.match(func, device), device)
        for builder in (
            product([128, 3072], [3072, 768], "float16"),
            product([4096, 3072], [3072, 768], "float16"),
        )
        for func in builder(device)
    )
    assert few["splits"] > 1
    assert many["splits"] == 1


def test_many_batches_are_no_limit() -> None:
    """Blocks are counted along x alone, which takes two billions."""
    device, rule = gpu(), RULES["cuda-tensor-matmul"]
    (func,) = product([70_000, 16, 64], [70_000, 64, 16], "float16")(device)
    match: Any = rule.match(func, device)
    made = rule.schedule(match, rule.default(match, device)).mod["main"]
    assert all(not launch.faults(device.device) for launch in launches.of_kernel(made, device))


BESIDE: dict[str, Builder] = {
    "fp16 with a residual": _residual("float16"),
    "bf16 with a residual": _residual("bfloat16"),
}


@needs_compiler
@pytest.mark.parametrize("name", BESIDE)
def test_neighbouring_sums_are_stored_at_once(name: str) -> None:
    """Four of 16 bits, with what is read for them."""
    device = gpu()
    rule = RULES["cuda-tensor-matmul"]
    (func,) = BESIDE[name](device)
    match: Any = rule.match(func, device)
    source, _ = source_of(rule.schedule(match, rule.default(match, device)).mod["main"], device)
    assert "half4*)" in source or "nv_bfloat164*)" in source
    assert check(rule, func, device, points=0)


@needs_compiler
@pytest.mark.parametrize("columns", [64, 72])
def test_what_has_no_vectors_is_computed_one_by_one_and_stored_at_once(columns: int) -> None:
    """The erf of a GELU, with a bias for each column."""

    def build(x: Any, w: Any, b: Any) -> Any:
        return op.astype(op.nn.gelu(op.add(op.matmul(x, w, out_dtype="float32"), b)), "float16")

    given = [([40, 32], "float16"), ([32, columns], "float16"), ([columns], "float32")]
    device, rule = gpu(), RULES["cuda-tensor-matmul"]
    (func,) = operator(build, *given)(device)
    match: Any = rule.match(func, device)
    source, _ = source_of(rule.schedule(match, rule.default(match, device)).mod["main"], device)
    assert "hybridc_vector<half, 4>" in source
    assert check(rule, func, device, points=1)


@needs_compiler
def test_bands_of_tiles_make_up_the_whole() -> None:
    """Of 18 rows of tiles the last two are a band of their own."""
    device = gpu()
    rule = RULES["cuda-tensor-matmul"]
    (func,) = product([550, 32], [32, 90], "float16")(device)
    match: Any = rule.match(func, device)
    sizes = {"rows": 32, "columns": 32, "warp_rows": 16, "warp_columns": 32}
    arrays = feed(func)
    made = rule.schedule(match, {**sizes, "stages": 2, "splits": 1}).mod["main"]
    for got, right in zip(run(made, arrays, device), reference(func, arrays), strict=True):
        close(got, right, 1e-3, "two bands")
