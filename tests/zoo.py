"""A zoo of small models that nobody tuned hybridc for; `ZOO` gives each by name.

The light models of the `onnx` wheel, architectures of `transformers` with random weights, and
hand-written networks.  Everything is built when asked for, nothing is downloaded.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from zoo_language import LANGUAGE
from zoo_networks import NETWORKS
from zoo_perception import AUDIO, VISION
from zoo_sequences import SEQUENCES

from hybridc.compiler.model import Array

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@dataclass(frozen=True)
class Animal:
    """A model as `hybridc.compile` takes it, and a feed of its inputs in their order.

    `stored` are outputs that came with the model, for the first of its feeds.
    """

    source: Any
    example_inputs: tuple[Any, ...] | None
    feed: tuple[Array, ...]
    stored: tuple[Array, ...] = ()


def light(path: Path) -> Animal:
    """A light model, fed as the runner of `onnx.backend.test` does: a ramp from 0 to 1."""
    proto = onnx.load(str(path))
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    shapes = [[dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in inputs]
    feed = tuple(
        (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32)
        for shape in shapes
    )
    output = onnx.TensorProto.FromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
    return Animal(path, None, feed, (numpy_helper.to_array(output),))


def exported(build: Callable[[], tuple[Any, tuple[Any, ...]]]) -> Animal:
    """A torch module, and another feed than the one that it is traced with."""
    torch.manual_seed(0)
    module, inputs = build()
    module.eval()
    torch.manual_seed(1)
    feed = tuple(_like(tensor).numpy() for tensor in inputs)
    return Animal(module, inputs, feed)


def _like(tensor: Any) -> Any:
    """Random numbers of the same kind: integers lie among those of the tensor."""
    if tensor.is_floating_point():
        return torch.randn(tensor.shape)
    if tensor.dtype == torch.bool:
        return torch.rand(tensor.shape) > 0.5
    return tensor.flatten()[torch.randperm(tensor.numel())].reshape(tensor.shape)


def _entries() -> Iterator[tuple[str, Callable[[], Animal]]]:
    for path in sorted(LIGHT.glob("*.onnx")):
        yield path.stem, partial(light, path)
    for name, build in {**LANGUAGE, **VISION, **AUDIO, **SEQUENCES}.items():
        yield name, partial(exported, build)
    for network in NETWORKS:
        yield network.__name__, partial(exported, network)


ZOO: Mapping[str, Callable[[], Animal]] = MappingProxyType(dict(_entries()))
