"""The GPUs of this host, as NVIDIA's driver tells them by ctypes, without a toolkit."""

import ctypes
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from hybridc.compiler.cuda import faults, gpu
from hybridc.compiler.cuda.gpu import Gpu
from hybridc.compiler.errors import InputError

LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256
_NOT_INITIALIZED = 3  # CUresult: of what was started itself, only a fork is told so
# CUdevice_attribute of cuda.h.
_ATTRIBUTES = {
    "clock_khz": 13,
    "sms": 16,
    "memory_khz": 36,
    "bus_bits": 37,
    "l2": 38,
    "threads_per_sm": 39,
    "major": 75,
    "minor": 76,
    "shared_per_sm": 81,
    "shared_per_block": 97,
    "blocks_per_sm": 106,
}
# TVM's runtime is linked with libcudart.so.13, which no older driver takes.
_LEAST_DRIVER = 13_000
_LEAST = 75  # compute capability; the compilers of today know none before
# Multiply-adds that the CUDA cores of a multiprocessor start in a cycle, by compute capability.
_CORES = {75: 64, 80: 64}
_MANY_CORES = 128


class NoGpuError(InputError):
    """There is no GPU that can be used here, and the message says why."""


@dataclass(frozen=True)
class Device:
    """A GPU of this host: its number among those that this process may see."""

    index: int
    gpu: Gpu


def devices() -> tuple[Device, ...]:
    """The GPUs that this process may use; `CUDA_VISIBLE_DEVICES` narrows and orders them.

    Raises NoGpuError where there is no driver, it is older than this needs, or it sees no GPU.
    """
    driver = loaded()
    count = ctypes.c_int()
    check(driver, driver.cuDeviceGetCount(ctypes.byref(count)), "count the GPUs")
    if not count.value:
        raise NoGpuError("NVIDIA's driver sees no GPU here")
    return tuple(Device(index, _describe(driver, index)) for index in range(count.value))


def first() -> Device:
    """The GPU that is used where none is named.  Raises NoGpuError as `devices` does."""
    return devices()[0]


def version() -> str:
    """The driver's CUDA version, `13.0`.  Raises NoGpuError without a driver."""
    number = ctypes.c_int()
    driver = loaded()
    check(driver, driver.cuDriverGetVersion(ctypes.byref(number)), "tell its version")
    return _version(number.value)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


@cache
def loaded() -> Any:
    """The driver, started once.  Raises NoGpuError where there is none that starts."""
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError:
        raise NoGpuError("this host has no NVIDIA driver (libcuda.so.1 is not found)") from None
    check(driver, driver.cuInit(0), "start")
    number = ctypes.c_int()
    check(driver, driver.cuDriverGetVersion(ctypes.byref(number)), "tell its version")
    if number.value < _LEAST_DRIVER:
        raise NoGpuError(
            f"NVIDIA's driver is too old: it is for CUDA {_version(number.value)}, and code needs"
            f" {_version(_LEAST_DRIVER)}"
        )
    return driver


def check(driver: Any, status: int, what: str) -> None:
    """Raise NoGpuError where the driver could not do something, with what it says of it."""
    if status == 0:
        return
    if status == _NOT_INITIALIZED:
        raise NoGpuError(
            "this process is a fork of one that had started NVIDIA's driver, which no fork can use:"
            " start it by multiprocessing's spawn, or fork before anything asks for a GPU"
        )
    told = ctypes.c_char_p()
    driver.cuGetErrorString(status, ctypes.byref(told))
    reason = told.value.decode() if told.value else f"error {status}"
    said = f"NVIDIA's driver cannot {what}: {reason}"
    # What kernels do wrong is told by whoever waits for them.
    raise NoGpuError(faults.lost(said) if faults.is_sticky(said) else said)


def _describe(driver: Any, index: int) -> Gpu:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    check(driver, driver.cuDeviceGet(ctypes.byref(device), index), f"open GPU {index}")
    check(driver, driver.cuDeviceGetName(name, _NAME_BYTES, device), f"name GPU {index}")
    found: dict[str, int] = {}
    for attribute, number in _ATTRIBUTES.items():
        value = ctypes.c_int()
        status = driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        check(driver, status, f"describe GPU {index}")
        found[attribute] = value.value
    return described(name.value.decode(), found)


def described(name: str, found: dict[str, int]) -> Gpu:
    """A GPU from what the driver says of it; peaks from the table, or by its clock.

    Raises NoGpuError for one that is older than any that code can be generated for.
    """
    capability = 10 * found["major"] + found["minor"]
    if capability < _LEAST:
        raise NoGpuError(
            f"{name} has compute capability {found['major']}.{found['minor']}; 7.5 is the least"
        )
    known = gpu.board_like(name, capability)
    cores = _CORES.get(capability, _MANY_CORES)
    fp32 = 2.0 * cores * found["sms"] * found["clock_khz"] * 1e3
    # Memory transfers twice a cycle, and a cycle is in kHz.
    bandwidth = 2.0 * found["memory_khz"] * 1e3 * found["bus_bits"] / 8
    made = Gpu(
        name=name,
        arch=gpu.specific(capability),
        sms=found["sms"],
        shared_per_sm=found["shared_per_sm"],
        shared_per_block=found["shared_per_block"],
        threads_per_sm=found["threads_per_sm"],
        blocks_per_sm=found["blocks_per_sm"],
        l2=found["l2"],
        fp32=fp32,
        # Tensor cores of the smallest boards: twice and four times the CUDA cores.
        tf32=2 * fp32 if capability >= 80 else 0.0,
        half=4 * fp32,
        bandwidth=bandwidth,
    )
    if known is None:
        return made
    return replace(
        made, fp32=known.fp32, tf32=known.tf32, half=known.half, bandwidth=known.bandwidth
    )
