"""Where a graph's tensors lie, and what it is compiled for: the CPU, or the GPU that has them."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from hybridc.compiler import target
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import ModelError
from hybridc.compiler.target import CPU, CUDA

_USUAL = "cpu"  # the target that was not asked for


def place(tensor: Any) -> Any:
    """The device of a tensor."""
    return tensor.device


def common(read: Iterable[Any], made: Iterable[Any] = ()) -> Any:
    """The device that has all tensors; numbers on the CPU may be read beside those of a GPU.

    Raises ModelError if there is none on which compiled code runs.
    """
    import torch

    found = {place(each) for each in read if each.ndim or place(each).type != CPU}
    found.update(map(place, made))
    device = found.pop() if found else torch.device(CPU)
    for other in (device, *found):
        if other.type not in (CPU, CUDA) or torch.version.hip is not None:
            raise ModelError(f"a tensor is on {other}; only the CPU and NVIDIA's GPUs are served")
    if found:
        raise ModelError(f"tensors are on {device} and on {found.pop()}; move them to one device")
    if device.index:
        raise ModelError(
            f"a tensor is on {device}; compiled code runs on cuda:0, the first GPU that"
            " CUDA_VISIBLE_DEVICES allows"
        )
    return device


def options_for(device: Any, options: Options) -> Options:
    """The options with the target that has the tensors.

    Raises ModelError if another kind of target was asked for.
    """
    if options.target == _USUAL:
        return dataclasses.replace(options, target=CUDA) if device.type == CUDA else options
    if target.kind_of(options.target) != device.type:
        raise ModelError(f"its tensors are on {device}, and its target is {options.target}")
    return options


def on_host(value: Any) -> Any:
    """What an operator is given, as the graph has it on the CPU: devices, and tensors on them."""
    import torch

    if isinstance(value, torch.device):
        return torch.device(CPU)
    return value.cpu() if isinstance(value, torch.Tensor) else value


def readable(tensor: Any, alignment: int) -> Any:
    """The tensor, or on a GPU a copy, where it has gaps or begins on no multiple of `alignment`."""
    if place(tensor).type == CPU:
        return tensor  # what is to be copied there, sessions copy
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % alignment == 0 else tensor.clone()
