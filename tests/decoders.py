"""Decoders as exporters of language models write them for ONNX Runtime."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
EPSILON = 1e-5


@dataclass(frozen=True)
class Sizes:
    """The sizes of a decoder; weights have blocks of `block` inputs."""

    hidden: int = 64
    heads: int = 4
    groups: int = 2
    layers: int = 2
    inner: int = 96
    words: int = 80
    block: int = 32
    places: int = 64
    accuracy: int = 0

    @property
    def width(self) -> int:
        return self.hidden // self.heads


@dataclass
class Decoder:
    """Writes the nodes of a decoder with weights of 4 bits, and attention of groups."""

    sizes: Sizes
    length: int | str = "sequence_length"
    past: int | str = "past_sequence_length"
    batch: int | str = "batch_size"
    nodes: list[Any] = field(default_factory=list[Any])
    constants: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(5)

    def add(self, operator: str, inputs: str, outputs: str, *, own: bool = False, **options: Any):
        names = ["" if n == "-" else n for n in inputs.split()]
        domain = MICROSOFT if own else ""
        made = helper.make_node(operator, names, outputs.split(), domain=domain, **options)
        self.nodes.append(made)
        return outputs.split(maxsplit=1)[0]

    def known(self, name: str, value: Any) -> str:
        self.constants[name] = value
        return name

    def linear(self, x: str, name: str, depth: int, columns: int) -> str:
        size = self.sizes.block
        shape = columns, -(-depth // size), size // 2
        packed = self.random.integers(0, 256, shape).astype(np.uint8)
        scales = self.random.uniform(0.1, 0.3, shape[:2]) / np.sqrt(depth)
        self.known(f"{name}.b", packed)
        self.known(f"{name}.s", scales.astype(np.float32))
        options = {"K": depth, "N": columns, "bits": 4, "block_size": size}
        options["accuracy_level"] = self.sizes.accuracy
        return self.add("MatMulNBits", f"{x} {name}.b {name}.s", name, own=True, **options)

    def scale(self, name: str) -> str:
        x = self.random.uniform(0.5, 1.5, self.sizes.hidden)
        return self.known(name, x.astype(np.float32))

    def model(self) -> Any:
        s = self.sizes
        one = self.known("one", np.array([1], np.int64))
        self.add("ReduceSum", f"attention_mask {one}", "counts")
        self.add("Sub", f"counts {one}", "ends64")
        self.add("Cast", "ends64", "ends", to=INT32)
        self.add("Shape", "attention_mask", "mask_shape")
        self.known("axis", np.array(1, np.int64))
        self.add("Gather", "mask_shape axis", "total64", axis=0)
        self.add("Cast", "total64", "total", to=INT32)
        half = s.width // 2
        angles = np.arange(s.places)[:, None] * (10000.0 ** (-np.arange(half) / half))[None]
        self.known("cos", np.cos(angles).astype(np.float32))
        self.known("sin", np.sin(angles).astype(np.float32))
        table = self.random.standard_normal((s.words, s.hidden)).astype(np.float32)
        x = self.add("Gather", f"{self.known('table', table)} input_ids", "embedded")
        normed = self.add(
            "SimplifiedLayerNormalization", f"{x} {self.scale('n0')}", "normed", epsilon=EPSILON
        )
        for index in range(s.layers):
            x, normed = self.layer(x, normed, f"l{index}")
        self.linear(normed, "logits", s.hidden, s.words)
        return self.built()

    def layer(self, x: str, normed: str, name: str) -> tuple[str, str]:
        s = self.sizes
        kept = s.groups * s.width
        q = self.linear(normed, f"{name}.q", s.hidden, s.hidden)
        k, v = (self.linear(normed, f"{name}.{n}", s.hidden, kept) for n in "kv")
        own = {"num_heads": s.heads, "kv_num_heads": s.groups, "do_rotary": 1}
        made = self.add(
            "GroupQueryAttention",
            f"{q} {k} {v} past.{name}.key past.{name}.value ends total cos sin",
            f"{name}.a present.{name}.key present.{name}.value",
            own=True,
            **own,
        )
        out = self.linear(made, f"{name}.o", s.hidden, s.hidden)
        normed, x = self.skip(x, out, f"{name}.n1")
        gate, up = (self.linear(normed, f"{name}.{n}", s.hidden, s.inner) for n in ("gate", "up"))
        self.add("Sigmoid", gate, f"{name}.sigmoid")
        self.add("Mul", f"{gate} {name}.sigmoid", f"{name}.silu")
        self.add("Mul", f"{name}.silu {up}", f"{name}.inner")
        down = self.linear(f"{name}.inner", f"{name}.down", s.inner, s.hidden)
        normed, x = self.skip(x, down, f"{name}.n2")
        return x, normed

    def skip(self, x: str, y: str, name: str) -> tuple[str, str]:
        inputs = f"{x} {y} {self.scale(f'{name}.w')}"
        operator = "SkipSimplifiedLayerNormalization"
        nothing = [f"{name}.y", "", "", f"{name}.sum"]
        made = helper.make_node(
            operator, inputs.split(), nothing, domain=MICROSOFT, epsilon=EPSILON
        )
        self.nodes.append(made)
        return f"{name}.y", f"{name}.sum"

    def built(self) -> Any:
        s = self.sizes
        whole = "total_sequence_length"
        given: list[Any] = [
            ("input_ids", INT64, [self.batch, self.length]),
            ("attention_mask", INT64, [self.batch, whole]),
        ]
        made: list[Any] = [("logits", FLOAT, [self.batch, self.length, s.words])]
        for index in range(s.layers):
            for part in ("key", "value"):
                shape = [self.batch, s.groups, self.past, s.width]
                given.append((f"past.l{index}.{part}", FLOAT, shape))
                shape = [self.batch, s.groups, whole, s.width]
                made.append((f"present.l{index}.{part}", FLOAT, shape))
        graph = helper.make_graph(
            self.nodes,
            "decoder",
            [helper.make_tensor_value_info(*value) for value in given],
            [helper.make_tensor_value_info(*value) for value in made],
            [numpy_helper.from_array(np.asarray(v), n) for n, v in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)
