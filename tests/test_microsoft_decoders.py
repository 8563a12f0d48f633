"""ONNX Runtime's operators of language models; ONNX Runtime is the reference."""

from typing import Any

import numpy as np
import onnx
import onnx.compose
import pytest
from onnx import TensorProto, helper
from onnx_models import build, check, noise

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontend import load
from hybridc.compiler.frontends.onnx_graph.element_types import number_of
from hybridc.compiler.model import Array

MICROSOFT = "com.microsoft"
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
HEADS, GROUPS, WIDTH = 4, 2, 32
Arrays = dict[str, Any]
INPUTS = ["q", "k", "v", "pk", "pv", "ends", "total", "cos", "sin", "at", "bias", "sink"]


def one(
    operator: str, names: list[str], fed: Arrays, constants: Arrays, ends: str, **attributes: Any
) -> Any:
    """A model of one node; inputs that have neither a value nor a constant are left out."""
    known = {**fed, **constants}
    inputs = [name if name in known else "" for name in names]
    while not inputs[-1]:
        inputs.pop()
    made = helper.make_node(operator, inputs, ends.split(), domain=MICROSOFT, **attributes)
    given = [(n, number_of(str(x.dtype)), list(x.shape)) for n, x in fed.items()]
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    kind = next((n for _, n, _ in given if n in kinds), TensorProto.FLOAT)
    made_ends = [(name, kind, None) for name in ends.split()]
    return build([made], given, made_ends, constants, opset_imports=OPSETS)


def agrees(model: Any, fed: Arrays, tolerance: float = 1e-4) -> list[Any]:
    """The model is imported, and computes what ONNX Runtime does."""
    loaded = load(model)
    assert not loaded.regions
    if tolerance == 1e-4:
        return check(loaded, fed)
    from hybridc.compiler.ir.evaluate import evaluate

    got = [*evaluate(loaded.module, [fed[spec.name] for spec in loaded.inputs])]
    for value, right in zip(got, loaded.reference(fed), strict=True):
        assert value.dtype == right.dtype
        np.testing.assert_allclose(
            value.astype(np.float32), right.astype(np.float32), rtol=tolerance, atol=tolerance
        )
    return got


def grouped(
    length: int, past: int | None, total: int, *, batch: int = 1, ends: list[int] | None = None
) -> tuple[Arrays, Arrays]:
    """What GroupQueryAttention is given: by `past` tokens, or places for them."""
    fed = {"q": noise(batch, length, HEADS * WIDTH)}
    fed |= {n: noise(batch, length, GROUPS * WIDTH) + i for i, n in enumerate("kv")}
    if past is not None:
        fed |= {f"p{n}": noise(batch, GROUPS, past, WIDTH) - i for i, n in enumerate("kv")}
    fed["ends"] = np.array(ends or [total - 1] * batch, np.int32)
    return fed, {"total": np.array([total], np.int32)}


def tables(half: int = WIDTH // 2) -> Arrays:
    angles = np.arange(20)[:, None] * np.linspace(0.1, 1, half)[None]
    return {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}


def group_query(fed: Arrays, constants: Arrays, **options: Any) -> Any:
    sizes = {"num_heads": HEADS, "kv_num_heads": GROUPS}
    return one("GroupQueryAttention", INPUTS, fed, constants, "y nk nv", **sizes, **options)


PLAIN: list[tuple[tuple[int, int | None, int], Arrays]] = [
    ((1, 5, 6), {}),  # one token more in a longer tensor
    ((3, 5, 8), {"scale": 0.2}),
    ((1, 9, 6), {}),  # in a place of what was given
    ((4, 9, 4), {}),  # a first prompt
    ((4, None, 4), {}),
    ((4, 0, 4), {}),
    ((3, 9, 7), {"local_window_size": 4}),
    ((6, 9, 6), {"local_window_size": 2}),
    ((3, 5, 8), {"softcap": 1.5}),
    ((3, 5, 8), {"smooth_softmax": 1}),
    ((3, 5, 8), {"causal": 0}),
]


def together(cases: list[tuple[Any, Arrays]]) -> tuple[Any, Arrays]:
    """One model of several, which have nothing to do with each other: it is built once."""
    whole, fed = onnx.ModelProto(), {}
    whole.CopyFrom(cases[0][0])
    whole.graph.Clear()
    whole.graph.name = "together"
    for index, (model, own) in enumerate(cases):
        prefix = f"c{index}."
        graph = onnx.compose.add_prefix(model, prefix).graph
        for part in ("node", "input", "output", "initializer"):
            getattr(whole.graph, part).extend(getattr(graph, part))
        fed |= {prefix + name: x for name, x in own.items()}
    return whole, fed


@pytest.mark.slow
def test_attention_of_groups() -> None:
    cases = []
    for sizes, options in PLAIN:
        fed, constants = grouped(*sizes)
        cases.append((group_query(fed, constants, **options), fed))
    for past in (5, 9):  # sequences of a batch of different lengths
        fed, constants = grouped(1, past, 6, batch=3, ends=[5, 3, 0])
        cases.append((group_query(fed, constants | tables(), do_rotary=1), fed))
    agrees(*together(cases))


@pytest.mark.slow
def test_padding_behind_the_prompts_of_a_batch() -> None:
    """What ONNX Runtime makes of the padding's own queries is not specified."""
    fed, constants = grouped(4, 9, 4, batch=2, ends=[3, 1])
    loaded = load(group_query(fed, constants | tables(), do_rotary=1))
    from hybridc.compiler.ir.evaluate import evaluate

    got = [*evaluate(loaded.module, [fed[spec.name] for spec in loaded.inputs])]
    right = loaded.reference(fed)
    for row, count in enumerate((4, 2)):
        np.testing.assert_allclose(got[0][row, :count], right[0][row, :count], rtol=1e-3, atol=1e-4)
    for one_of, other in zip(got[1:], right[1:], strict=True):
        np.testing.assert_allclose(one_of, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_rotations_biases_sinks_and_packed_projections() -> None:
    cases = []
    for interleaved, half, length in ((0, 16, 1), (1, 16, 3), (0, 8, 3), (1, 8, 1)):
        fed, constants = grouped(length, 5, 5 + length)
        options = {"do_rotary": 1, "rotary_interleaved": interleaved}
        cases.append((group_query(fed, constants | tables(half), **options), fed))
    fed, constants = grouped(1, 5, 6)
    fed["at"] = np.array([[9]], np.int64)
    cases.append((group_query(fed, constants | tables(), do_rotary=1), fed))
    for heads in (1, HEADS):
        fed, constants = grouped(3, 5, 8)
        fed["bias"] = noise(1, heads, 3, 8)
        cases.append((group_query(fed, constants | {"sink": noise(HEADS)}), fed))
    packed = {"q": np.concatenate([fed[n] for n in "qkv"], -1)}
    packed |= {n: fed[n] for n in ("pk", "pv", "ends")}
    cases.append((group_query(packed, constants | tables(), do_rotary=1), packed))
    agrees(*together(cases))


def test_attention_of_groups_in_halves() -> None:
    fed, constants = grouped(3, 5, 8)
    fed = {n: x.astype(np.float16) if x.dtype == np.float32 else x for n, x in fed.items()}
    constants |= {n: x.astype(np.float16) for n, x in tables().items()}
    agrees(group_query(fed, constants, do_rotary=1), fed, 4e-3)


@pytest.mark.parametrize(
    "options", [{"sliding_window_cache": 1, "local_window_size": 4}, {"qk_output": 1}]
)
def test_what_is_not_written_out_is_refused(options: Arrays) -> None:
    fed, constants = grouped(3, 9, 8)
    ends = "y nk nv" + (" qk" if "qk_output" in options else "")
    sizes = {"num_heads": HEADS, "kv_num_heads": GROUPS}
    model = one("GroupQueryAttention", INPUTS, fed, constants, ends, **sizes, **options)
    with pytest.raises(ModelError, match=r"^operator 'GroupQueryAttention' .* is not supported"):
        load(model)


def packed(integers: Array, bits: int) -> Array:
    """Bytes of integers along the last axis, the first in the lowest bits."""
    share = 8 // bits
    short = -integers.shape[-1] % share
    whole = np.pad(integers, [*[(0, 0)] * (integers.ndim - 1), (0, short)])
    parts = whole.reshape(*whole.shape[:-1], -1, share).astype(np.uint8)
    return (parts << np.arange(0, 8, bits, dtype=np.uint8)).sum(-1).astype(np.uint8)


def blocks(depth: int, columns: int, bits: int, size: int, zeros: str = "") -> Arrays:
    """The weights of a product in blocks, as MatMulNBits has them."""
    rng, count = np.random.default_rng(3), -(-depth // size)
    whole = rng.integers(0, 2**bits, (columns, count, size))
    made: Arrays = {"b": packed(whole, bits), "s": rng.uniform(0.01, 0.1, (columns, count))}
    made["s"] = made["s"].astype(np.float32)
    if zeros == "bytes":
        made["z"] = packed(rng.integers(0, 2**bits, (columns, count)), bits)
    elif zeros:
        made["z"] = rng.uniform(0, 2**bits, (columns, count)).astype(np.float32)
    return made


def test_products_of_few_bits() -> None:
    cases = []
    names = ["x", "b", "s", "z", "g", "bias"]
    for bits, size, depth in ((4, 32, 64), (4, 16, 40), (8, 64, 128), (4, 128, 100), (2, 32, 96)):
        for zeros in ("", "bytes") if bits == 8 else ("", "bytes", "floats"):
            constants = blocks(depth, 24, bits, size, zeros) | {"bias": noise(24)}
            options = {"bits": bits, "block_size": size, "K": depth, "N": 24}
            fed = {"x": noise(2, 3, depth)}
            cases.append((one("MatMulNBits", names, fed, constants, "y", **options), fed))
    order = np.random.default_rng(1).permutation(np.arange(64) // 32).astype(np.int32)
    options = {"bits": 4, "block_size": 32, "K": 64, "N": 24}
    constants, fed = blocks(64, 24, 4, 32) | {"g": order}, {"x": noise(3, 64)}
    cases.append((one("MatMulNBits", names, fed, constants, "y", **options), fed))
    agrees(*together(cases))


def test_products_of_few_bits_in_halves() -> None:
    options = {"bits": 4, "block_size": 32, "K": 64, "N": 24}
    constants, fed = blocks(64, 24, 4, 32, "bytes"), {"x": noise(3, 64).astype(np.float16)}
    constants["s"] = constants["s"].astype(np.float16)
    names = ["x", "b", "s", "z"]
    agrees(one("MatMulNBits", names, fed, constants, "y", **options), fed, 2e-2)


def test_rows_of_tables_of_few_bits() -> None:
    cases = []
    for bits, zeros in ((4, ""), (4, "bytes"), (8, ""), (8, "bytes")):
        made = blocks(64, 24, bits, 32, zeros)
        constants = {**made, "b": made["b"].reshape(24, -1)}
        fed = {"i": np.array([[0, 23, 7], [5, -1, 1]], np.int64)}
        options = {"block_size": 32, "bits": bits, "quantize_axis": 1, "gather_axis": 0}
        names = ["b", "i", "s", "z"]
        cases.append((one("GatherBlockQuantized", names, fed, constants, "y", **options), fed))
    agrees(*together(cases))


def test_products_of_four_bit_floats() -> None:
    rng, cases = np.random.default_rng(0), []
    for kind in (0, 1):
        constants: Arrays = {"b": rng.integers(0, 256, 24 * 64 // 2).astype(np.uint8)}
        constants["s"] = rng.uniform(0.1, 1, 24 * 64 // 32).astype(np.float32)
        fed = {"x": noise(3, 64)}
        options = {"quant_type": kind, "block_size": 32, "K": 64, "N": 24}
        cases.append((one("MatMulBnb4", ["x", "b", "s"], fed, constants, "y", **options), fed))
    agrees(*together(cases))


@pytest.mark.slow
def test_mixtures_of_experts() -> None:
    cases = []
    fed = {"x": noise(2, 3, 8), "r": noise(6, 4)}
    constants = {"a": noise(4, 16, 8), "ab": noise(4, 16), "c": noise(4, 8, 16), "cb": noise(4, 8)}
    names = ["x", "r", "a", "ab", "c", "cb"]
    for index, kind in enumerate(("relu", "gelu", "silu", "identity")):
        options = {"k": 2, "activation_type": kind, "normalize_routing_weights": index % 2}
        cases.append((one("MoE", names, fed, constants, "y", **options), fed))
    fed = {"x": noise(6, 8), "r": noise(6, 4)}
    constants |= {"a": noise(4, 32, 8), "ab": noise(4, 32)}
    options = {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "swiglu_limit": 1.0}
    options |= {"activation_alpha": 1.7, "activation_beta": 1.0}
    cases.append((one("MoE", names, fed, constants, "y", **options), fed))
    agrees(*together(cases))


@pytest.mark.slow
def test_mixtures_of_packed_experts() -> None:
    rng, cases = np.random.default_rng(0), []
    for bits, size in ((4, 0), (4, 16), (8, 0)):
        fed, constants = {"x": noise(6, 32), "r": noise(6, 4)}, {}
        for name, rows, depth in (("a", 64, 32), ("c", 32, 32)):
            constants[name] = packed(rng.integers(0, 2**bits, (4, rows, depth)), bits)
            shape = (4, rows, depth // size) if size else (4, rows)
            constants[f"{name}s"] = rng.uniform(0.01, 0.1, shape).astype(np.float32)
        options = {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1}
        options |= {"expert_weight_bits": bits, **({"block_size": size} if size else {})}
        names = ["x", "r", "a", "as", "", "c", "cs"]
        cases.append((one("QMoE", names, fed, constants, "y", **options), fed))
    agrees(*together(cases), 2e-3)


def test_products_of_turned_batches() -> None:
    cases = []
    for flags in ("transBatchA", "transBatchB", "transBatchA transA"):
        fed = {"a": noise(2, 3, 4, 6), "b": noise(2, 3, 6, 5)}
        if "transA" in flags.split():
            fed["a"] = fed["a"].swapaxes(2, 3)
        for name in "ab":
            if f"transBatch{name.upper()}" in flags.split():
                fed[name] = _turned(fed[name])
        fed = {name: np.ascontiguousarray(x) for name, x in fed.items()}
        options: Arrays = dict.fromkeys(flags.split(), 1)
        cases.append((one("FusedMatMul", ["a", "b"], fed, {}, "y", **options), fed))
    agrees(*together(cases))


def _turned(x: Any) -> Any:
    """Rows before the axes of a batch."""
    return np.moveaxis(x, -2, 0)
