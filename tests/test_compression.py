"""Weights that a file holds in few bits: the constants that they become when it is loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from example_artifact import make
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler import driver
from hybridc.compiler.artifacts import archive
from hybridc.compiler.artifacts.artifact import COMPRESSED_FORMAT, Artifact
from hybridc.compiler.artifacts.weights import encode
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.assurance.reduced import REDUCED
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import ArtifactError
from hybridc.compiler.kernels.convolutions.winograd_transforms import transform_filter, transforms
from hybridc.compiler.kernels.products import packing
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import compression, group_quantization
from hybridc.compiler.quantization.compression import Compressed
from hybridc.compiler.runtime.session import InferenceSession

pytestmark = pytest.mark.filterwarnings("ignore")


def rounded(
    shape: tuple[int, ...], bits: int, group: int
) -> tuple[Array, group_quantization.Grouped]:
    """Weights `[K, N]` or `[N, KH, KW, I]` that few bits hold, and the integers."""
    matrix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if len(shape) == 2:
        quantized = group_quantization.quantize(matrix, bits, group)
        return quantized.dequantized(), quantized
    quantized = group_quantization.quantize(matrix.reshape(len(matrix), -1).T, bits, group)
    return np.ascontiguousarray(quantized.dequantized().T).reshape(shape), quantized


def held(weight: Array, quantized: Any, pack: Any, side: int = 0) -> tuple[Array, Compressed]:
    """Packed weights, and what a file holds of them."""
    known: compression.Known = {}
    compression.add(known, weight, quantized)
    made = transform_filter(pack(weight), side) if side else pack(weight)
    compression.follow(known, weight, pack, made, side)
    found = compression.of(known, made)
    assert isinstance(found, Compressed)
    return made, found


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([(5, 1), (70, 33), (16, 2, 3, 6), (9, 3, 3, 5), (33, 1, 1, 20)]),
    st.sampled_from([8, 4]),
    st.integers(1, 40),
    st.sampled_from([4, 8, 16]),
)
def test_constants_are_unpacked_to_the_bit(
    shape: tuple[int, ...], bits: int, group: int, lanes: int
) -> None:
    weight, quantized = rounded(shape, bits, group)

    def pack(array: Array) -> Array:
        if array.ndim == 2:
            return packing.in_pairs(packing.pack_matrix(array, lanes))
        return packing.pack_filter(array, 1, lanes)[0]

    for side in (0, 2, 4) if shape[1:3] == (3, 3) else (0,):
        made, found = held(weight, quantized, pack, side)
        np.testing.assert_array_equal(found.constant(), made)
        assert found.constant().ctypes.data % 64 == 0
    known: compression.Known = {}
    compression.add(known, weight, quantized)
    plain = compression.of(known, weight)
    assert plain is not None
    np.testing.assert_array_equal(plain.constant(), weight)
    assert compression.of(known, weight + 1) is None


@pytest.mark.parametrize("side", [2, 4])
def test_filters_are_transformed_by_their_matrices(side: int) -> None:
    weight = np.random.default_rng(1).standard_normal((5, 3, 3, 4)).astype(np.float32)
    _, g, _ = transforms(side, 3)
    wanted = np.einsum("xi,yj,oijc->xyoc", g, g, weight.astype(np.float64))
    got = transform_filter(weight, side)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)


def network(groups: int = 1) -> Any:
    """Convolutions by each algorithm, and products of many rows and of one."""
    draw, node = np.random.default_rng(0), helper.make_node
    shapes = {
        "stem": (32, 3, 3, 3),
        "tile": (32, 32, 3, 3),
        "point": (64, 32, 1, 1),
        "parts": (64, 64 // groups, 3, 3),
        "rows": (64, 48),
        "one": (48, 10),
    }
    nodes = [
        node("Conv", ["x", "stem"], ["a"], pads=[1] * 4, strides=[2, 2]),
        node("Conv", ["a", "tile"], ["b"], pads=[1] * 4),
        node("Relu", ["b"], ["c"]),
        node("Conv", ["c", "point"], ["d"]),
        node("Conv", ["d", "parts"], ["e"], pads=[1] * 4, group=groups, strides=[2, 2]),
        node("Transpose", ["e"], ["f"], perm=[0, 2, 3, 1]),
        node("MatMul", ["f", "rows"], ["g"]),
        node("ReduceMean", ["g", "axes"], ["h"], keepdims=0),
        node("MatMul", ["h", "one"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 40, 36))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = {
        name: (draw.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32)
        for name, shape in shapes.items()
    } | {"axes": np.array([1, 2])}
    kept = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


# What a file may take of that in fp32; sums of 16 bits are no faster with AVX2 than those of fp32.
STORED = {"int8-weights": 0.3, "int4-weights": 0.2, "bf16": 0.52, "fp16": 0.52}


@pytest.mark.parametrize("groups", [1, 2, 16])
@pytest.mark.parametrize("dtype", STORED)
def test_a_network_is_stored_in_few_bits_and_runs_like_one_of_fp32(
    dtype: str, groups: int, tmp_path: Path
) -> None:
    source = network(groups)
    made = driver.compile_source(source, Options(dtype=dtype, target="avx2")).artifact
    full = driver.compile_source(source, Options(dtype="fp32", target="avx2")).artifact
    assert any(few.side for few in made.compressed.values())
    filters = [[w.shape for w in each.weights.values() if w.ndim > 3] for each in (made, full)]
    assert filters[0] == filters[1]
    given = sum(4 * np.prod(each.dims) for each in source.graph.initializer)
    merged = 4 * 64 * 64 * 9 / (2 if groups == 2 else 1) if groups > 1 else 0
    few = sum(array.nbytes for array in made.stored().values())
    assert few < (given + merged) * STORED[dtype]
    made.save(tmp_path / "m.hyb")
    loaded = Artifact.load(tmp_path / "m.hyb")
    assert list(loaded.weights) == list(made.weights)
    for name, array in made.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], array)
    x = np.random.default_rng(1).standard_normal((1, 3, 40, 36)).astype(np.float32)
    (got,) = InferenceSession(loaded).run(None, {"x": x})
    (same,) = InferenceSession(made).run(None, {"x": x})
    np.testing.assert_array_equal(got, same)
    reference = onnxruntime.InferenceSession(source.SerializeToString())
    answers: Any = reference.run(None, {"x": x})
    allowed = REDUCED[dtype].share
    assert np.abs(got - answers[0]).max() < allowed * np.abs(answers[0]).max()
    loaded.save(tmp_path / "again.hyb")
    assert (tmp_path / "again.hyb").read_bytes() == (tmp_path / "m.hyb").read_bytes()


@pytest.mark.parametrize("dtype", STORED)
def test_a_limit_on_memory_leaves_products_packed(dtype: str) -> None:
    source, contract = network(), Contract(max_memory="1GB")
    loose = driver.compile_source(source, Options(dtype=dtype, target="avx2"))
    tight = driver.compile_source(source, Options(dtype=dtype, target="avx2", contract=contract))
    products = [
        [w for w in each.artifact.weights.values() if w.ndim == 3 and w.dtype == np.float32]
        for each in (loose, tight)
    ]
    assert products[0]
    assert not products[1]
    used = [each.report.memory for each in (loose, tight)]
    assert used[0]
    assert used[1]
    assert used[0].weights > used[1].weights


def compressed() -> Artifact:
    """An artifact of which two weights are held in few bits."""
    known = {}
    for bits in (8, 4):
        weight, quantized = rounded((16, 3, 3, 5), bits, 20)
        known[f"few{bits}"] = held(weight, quantized, _in_blocks, 2)
    weights = {name: made for name, (made, _) in known.items()}
    return make(weights=weights, compressed={name: found for name, (_, found) in known.items()})


def halved() -> Artifact:
    """An artifact of which a weight, transformed for Winograd's tiles, is held in 16 bits."""
    known: compression.Known = {}
    weight = np.random.default_rng(0).standard_normal((16, 3, 3, 5)).astype(np.float16)
    wide = compression.widened(known, weight)
    made = transform_filter(_in_blocks(wide), 2)
    compression.follow(known, wide, _in_blocks, made, 2)
    found = compression.of(known, made)
    assert found is not None
    return make(weights={"few16": made}, compressed={"few16": found})


def _in_blocks(array: Array) -> Array:
    return packing.pack_filter(array, 1, 8)[0]


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 4},
        {"bits": 3},
        {"bits": "8"},
        {"shape": [2, 3, 3, 500, 8]},
        {"shape": [2, 3, 3, 0, 8]},
        {"shape": [720]},
        {"shape": "all"},
        {"side": 3},
        {"side": None},
        {"name": "few8.integers"},
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    artifact = compressed()
    manifest = artifact.manifest()
    assert manifest["format"] == COMPRESSED_FORMAT
    manifest["compressed"][0] |= change
    _refused(manifest, artifact, tmp_path)


@pytest.mark.parametrize("change", [{"bits": 8}, {"side": 3}, {"side": None}, {"name": "few2"}])
def test_halves_that_do_not_fit_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    artifact = halved()
    artifact.save(tmp_path / "whole.hyb")
    (loaded,) = Artifact.load(tmp_path / "whole.hyb").weights.values()
    np.testing.assert_array_equal(loaded, artifact.weights["few16"])
    manifest = artifact.manifest()
    manifest["compressed"][0] |= change
    _refused(manifest, artifact, tmp_path)


def test_a_weight_that_is_not_there_is_refused(tmp_path: Path) -> None:
    artifact = compressed()
    manifest = artifact.manifest()
    manifest["compressed"][1]["name"] = "few2"
    _refused(manifest, artifact, tmp_path)


def _refused(manifest: dict[str, Any], artifact: Artifact, folder: Path) -> None:
    members: dict[str, Any] = {
        "schedule.lock": (archive.dump_json(artifact.lock),),
        "report.json": (archive.dump_json(artifact.report),),
        "lib.so": (artifact.library,),
        "weights.safetensors": encode(artifact.stored()),
    }
    with (folder / "m.hyb").open("w+b") as stream:
        archive.write(stream, manifest, members)
    with pytest.raises(ArtifactError, match=r"describes no weights by .*few(2|8|16)"):
        Artifact.load(folder / "m.hyb")
