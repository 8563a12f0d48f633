"""Digests that identify a model and an artifact: of what they compute, and on which weights."""

from collections.abc import Mapping

import numpy as np
from blake3 import blake3

from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.model import Array, Region


def of_module(module: IRModule) -> str:
    """Of a module: its graph as text without the constants of `main`, and the constants' bytes.

    As text, the constants would take many times as long, and more memory than the model.
    """
    from tvm.ir import save_json

    from hybridc.compiler.building.weights import lift_weights

    graph, weights = lift_weights(module)
    return _digest(save_json(graph).encode(), weights)


def of_region(region: Region) -> str:
    """Of a part that ONNX Runtime computes, which a module only calls by name."""
    return _digest(region.proto, region.weights)


def of_artifact(artifact: Artifact) -> str:
    """Of an artifact: its code, weights, regions and libraries, but not its measurements."""
    told = "".join(f"{each.name} {each.backend} {each.graph.key};" for each in artifact.offloads)
    told += "".join(f"{each.name} {of_region(each)};" for each in artifact.regions)
    return _digest(artifact.library + told.encode(), artifact.weights)


def _digest(code: bytes, weights: Mapping[str, Array]) -> str:
    state = blake3()  # on one thread: the library's threads do not survive a fork
    state.update(code)
    for name, array in weights.items():
        state.update(f"{name} {array.dtype} {array.shape};".encode())
        state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return str(state.hexdigest())
