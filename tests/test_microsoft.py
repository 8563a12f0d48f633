"""ONNX Runtime's own operators, which its optimiser writes; ONNX Runtime is the reference."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import FLOAT, build, check, node, noise

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontend import load

MICROSOFT = "com.microsoft"
INT32, INT64 = TensorProto.INT32, TensorProto.INT64
UINT8 = TensorProto.UINT8
KINDS = {"float32": FLOAT, "int32": INT32, "int64": INT64, "uint8": UINT8}
BATCH, LENGTH, HEADS, WIDTH = 7, 5, 2, 8  # what else stands in a shape is none of the first two

LENGTHS = np.array([5, 3, 1, 2, 4, 5, 1], np.int32)
MARKS = np.stack([np.arange(LENGTH) % n != 1 for n in range(1, BATCH + 1)]).astype(np.int32)


def compute(
    call: tuple[str, str, str],
    fed: dict[str, Any],
    constants: dict[str, Any] | None = None,
    *,
    opset: int = 17,
    domain: str = MICROSOFT,
    **attributes: Any,
) -> None:
    """One node, by its operator, inputs and outputs, computes what ONNX Runtime computes.

    It is imported where its batch and length are open, too.
    """
    operator, inputs, outputs = call
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    arguments = ["" if name == "-" else name for name in inputs.split()]
    results = ["" if name == "-" else name for name in outputs.split()]
    made = helper.make_node(operator, arguments, results, domain=domain, **attributes)
    ends = [(name, 0, None) for name in results if name]
    for names in ({}, {BATCH: "batch", LENGTH: "length"}):
        given: list[Any] = [
            (name, KINDS[str(x.dtype)], [names.get(size, size) for size in x.shape])
            for name, x in fed.items()
        ]
        model = build([made], given, ends, constants, opset_imports=opsets)
        for value in model.graph.output:
            value.type.tensor_type.elem_type = INT32 if value.name == "lengths" else FLOAT
        loaded = load(model)
        assert not loaded.regions
        if not names:
            check(loaded, fed)


def ids(shape: Sequence[int], most: int) -> Any:
    return np.random.default_rng(3).integers(0, most, shape).astype(np.int32)


@pytest.mark.parametrize(
    ("operator", "operands"),
    [
        ("BiasGelu", ("x", "b")),
        ("FastGelu", ("x", "b")),
        ("FastGelu", ("x",)),
        ("Gelu", ("x",)),
        ("QuickGelu", ("x",)),
    ],
)
def test_activations(operator: str, operands: tuple[str, ...]) -> None:
    values = {"x": noise(BATCH, 3, 8) * 3, "b": noise(8)}
    compute((operator, " ".join(operands), "y"), {name: values[name] for name in operands})


@pytest.mark.parametrize("opset", [14, 17, 20])
def test_normalisations(opset: int) -> None:
    x, weights = {"x": noise(BATCH, 3, 8)}, {"s": noise(8) + 1, "b": noise(8)}
    both = {**x, "k": noise(BATCH, 3, 8)[::-1].copy()}
    compute(("LayerNormalization", "x s b", "y"), x, weights, opset=opset, domain="")
    compute(("SimplifiedLayerNormalization", "x s", "y"), x, weights, opset=opset, domain="")
    weights["c"] = noise(8)[::-1].copy()
    compute(("SkipLayerNormalization", "x k s b c", "y"), both, weights, opset=opset)
    compute(("SkipLayerNormalization", "x k s", "y - - sum"), both, weights, opset=opset)
    compute(("SkipSimplifiedLayerNormalization", "x k s c", "y - - sum"), both, weights)


def test_embeddings() -> None:
    tables = {"w": noise(9, 8), "p": noise(6, 8)[::-1].copy(), "k": noise(2, 8) + 1}
    tables |= {"s": noise(8) + 1, "b": noise(8)}
    fed = {"i": ids((BATCH, LENGTH), 9), "t": ids((BATCH, LENGTH), 2)}
    compute(("EmbedLayerNormalization", "i - w p - s b", "y lengths"), {"i": fed["i"]}, tables)
    fed["m"] = (np.arange(LENGTH) < LENGTHS[:, None]).astype(np.int32)
    compute(("EmbedLayerNormalization", "i t w p k s b m", "y lengths sum"), fed, tables)
    placed = {"i": fed["i"], "at": ids((BATCH, LENGTH), 6)}
    compute(("EmbedLayerNormalization", "i - w p - s b - at", "y lengths"), placed, tables)


@pytest.mark.parametrize(
    ("left", "right"), [((), ()), (("A",), ()), (("A", "B"), ()), (("B",), (3,))]
)
def test_products_of_turned_matrices(left: tuple[str, ...], right: tuple[int, ...]) -> None:
    a, b = noise(3, 4, 6), noise(3, 6, 7)
    fed = {
        "a": a.swapaxes(1, 2).copy() if "A" in left else a,
        "b": b.swapaxes(1, 2).copy() if "B" in left else b,
    }
    flags: dict[str, Any] = {f"trans{name}": 1 for name in left}
    compute(("FusedMatMul", "a b", "y"), fed, alpha=0.3 if right else 1.0, **flags)


@pytest.mark.parametrize(
    ("activation", "options"),
    [("Relu", []), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.5]), ("HardSigmoid", [0.2, 0.4])],
)
def test_activations_behind_products(activation: str, options: list[float]) -> None:
    names: dict[str, Any] = {
        "activation": activation,
        **({"activation_params": options} if options else {}),
    }
    fed = {"x": noise(1, 3, 6, 6), "z": noise(1, 4, 4, 4)}
    weights = {"w": noise(4, 3, 3, 3), "b": noise(4)}
    compute(("FusedConv", "x w b z", "y"), fed, weights, **names)
    if activation in ("Relu", "LeakyRelu"):
        given = {"activation_alpha": options[0]} if options else {}
        operands = {"w": noise(6, 4), "b": noise(4)}
        options_of: dict[str, Any] = {"activation": activation, **given}
        compute(("FusedGemm", "x w b", "y"), {"x": noise(3, 6)}, operands, **options_of)


def projections(seed: float = 1.0) -> dict[str, Any]:
    return {"w": noise(6, 3 * HEADS * WIDTH) * seed, "b": noise(3 * HEADS * WIDTH)}


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ("x w b", {}),
        ("x w b", {"unidirectional": 1, "scale": 0.2}),
        ("x w b lengths", {}),
        ("x w b marks", {"unidirectional": 1}),
        ("x w b each", {"mask_filter_value": -50.0}),
        ("x w b - - bias", {}),
    ],
)
def test_attention_of_one_sequence(inputs: str, options: dict[str, Any]) -> None:
    fed = {"x": noise(BATCH, LENGTH, 6), "lengths": LENGTHS, "marks": MARKS}
    fed["each"] = np.broadcast_to(MARKS[:, None], (BATCH, LENGTH, LENGTH)).copy()
    fed["bias"] = noise(BATCH, HEADS, LENGTH, LENGTH)
    fed = {name: x for name, x in fed.items() if name in inputs.split()}
    compute(("Attention", inputs, "y"), fed, projections(), num_heads=HEADS, **options)


def test_attention_with_keys_of_earlier_calls() -> None:
    past = noise(2, BATCH, HEADS, 3, WIDTH)
    fed = {"x": noise(BATCH, LENGTH, 6), "past": past}
    call = ("Attention", "x w b - past", "y present")
    compute(call, fed, projections(), num_heads=HEADS, unidirectional=1)


@pytest.mark.parametrize("bias", ["-", "b"])
@pytest.mark.parametrize("mask", ["-", "mask"])
def test_attention_of_projected_sequences(bias: str, mask: str) -> None:
    shape = (BATCH, LENGTH, HEADS * WIDTH)
    fed = {"q": noise(*shape), "k": noise(*shape)[::-1].copy(), "v": noise(*shape)[:, ::-1].copy()}
    fed |= {"mask": MARKS} if mask == "mask" else {}
    constants = {"b": noise(3 * HEADS * WIDTH)} if bias == "b" else {}
    compute(("MultiHeadAttention", f"q k v {bias} {mask}", "y"), fed, constants, num_heads=HEADS)


def test_attention_of_projected_sequences_with_a_past() -> None:
    shape = (BATCH, LENGTH, HEADS * WIDTH)
    fed = {"q": noise(*shape), "k": noise(*shape)[::-1].copy(), "v": noise(*shape)[:, ::-1].copy()}
    fed |= {"pk": noise(BATCH, HEADS, 3, WIDTH), "pv": noise(BATCH, HEADS, 3, WIDTH) + 1}
    call = ("MultiHeadAttention", "q k v - - - pk pv", "y nk nv")
    compute(call, fed, num_heads=HEADS, unidirectional=1)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize(
    ("shape", "half", "options"),
    [
        ((BATCH, LENGTH, HEADS * WIDTH), 4, {}),
        ((BATCH, HEADS, LENGTH, WIDTH), 4, {}),
        ((BATCH, LENGTH, HEADS * WIDTH), 2, {"num_heads": HEADS, "rotary_embedding_dim": 4}),
        ((BATCH, LENGTH, HEADS * WIDTH), 4, {"is_packed_batching": 1}),
    ],
)
@pytest.mark.parametrize("placed", [True, False])
def test_rotary_embeddings(
    shape: tuple[int, ...], half: int, options: dict[str, Any], interleaved: int, placed: bool
) -> None:
    angles = np.arange(9)[:, None] * np.linspace(0.1, 1, half)[None]
    tables = {"c": np.cos(angles).astype(np.float32), "s": np.sin(angles).astype(np.float32)}
    at = ids((BATCH, LENGTH), 9).astype(np.int64) if placed else np.array([2], np.int64)
    fed = {"x": noise(*shape), "at": at}
    compute(("RotaryEmbedding", "x at c s", "y"), fed, tables, interleaved=interleaved, **options)


def test_products_of_bytes_as_floats() -> None:
    rng = np.random.default_rng(5)
    weights = {
        "w": rng.integers(-128, 128, (6, 7)).astype(np.int8),
        "ws": rng.uniform(0.01, 0.02, 7).astype(np.float32),
        "wz": rng.integers(-3, 3, 7).astype(np.int8),
        "b": noise(7),
    }
    compute(("DynamicQuantizeMatMul", "x w ws wz b", "y"), {"x": noise(BATCH, 3, 6)}, weights)
    compute(("DynamicQuantizeMatMul", "x w ws", "y"), {"x": noise(BATCH, 3, 6)}, weights)
    fed = {"x": rng.integers(0, 256, (BATCH, 3, 6)).astype(np.uint8)}
    weights |= {"xs": np.float32(0.02), "xz": np.uint8(120)}
    compute(("MatMulIntegerToFloat", "x w xs ws xz wz b", "y"), fed, weights)
    compute(("MatMulIntegerToFloat", "x w xs ws - - b", "y"), fed, weights)


@pytest.mark.parametrize("inputs", ["x w b xs ws marks xz wz", "x w b xs ws - xz"])
def test_attention_of_bytes(inputs: str) -> None:
    rng = np.random.default_rng(5)
    weights = {
        "w": rng.integers(-128, 128, (6, 3 * HEADS * WIDTH)).astype(np.int8),
        "b": noise(3 * HEADS * WIDTH),
        "xs": np.float32(0.02),
        "ws": np.float32(0.01),
        "xz": np.uint8(120),
        "wz": np.int8(0),
    }
    fed = {"x": rng.integers(0, 256, (BATCH, LENGTH, 6)).astype(np.uint8), "marks": MARKS}
    fed = {name: x for name, x in fed.items() if name in inputs.split()}
    compute(("QAttention", inputs, "y"), fed, weights, num_heads=HEADS)


def test_what_is_not_written_out_is_left_to_onnx_runtime() -> None:
    """A mask of where each sequence begins too."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    made = node("Attention", "x w b m", "y", domain=MICROSOFT, num_heads=HEADS)
    given = [("x", FLOAT, [BATCH, LENGTH, 6]), ("m", INT32, [2 * BATCH])]
    model = build([made], given, [("y", FLOAT, None)], projections(), opset_imports=opsets)
    fed = {"x": noise(BATCH, LENGTH, 6), "m": np.concatenate([LENGTHS, 0 * LENGTHS])}
    loaded = load(model, fallback=True)
    assert len(loaded.regions) == 1
    assert np.isfinite(loaded.reference(fed)[0]).all()


@pytest.mark.parametrize("operator", ["NhwcConv", "NhwcFusedConv"])
def test_what_nobody_computes_on_a_cpu_is_refused(operator: str) -> None:
    """ONNX Runtime has no kernel that would tell how filters lie."""
    made = helper.make_node(operator, ["x", "w"], ["y"], domain="com.microsoft")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    given, filters = [("x", FLOAT, [1, 5, 5, 2])], {"w": noise(4, 2, 3, 3)}
    model = build([made], given, [("y", FLOAT, None)], filters, opset_imports=opsets)
    with pytest.raises(ModelError, match=f"^operator '{operator}' .* is not supported"):
        load(model)
