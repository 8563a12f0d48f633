"""NVIDIA GPUs by NVML: utilisation, memory and power.  The bindings are `pip install nvidia-ml-py`.

https://docs.nvidia.com/deploy/nvml-api/
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from hybridc.compiler.monitors.source import AbsentError, Channel


class Nvidia:
    """Every GPU that the driver shows; what a GPU does not tell is left out."""

    def __init__(self) -> None:
        try:
            self._nvml: Any = importlib.import_module("pynvml")
        except ImportError:
            raise AbsentError("no GPU is looked for: nvidia-ml-py is not installed") from None
        try:
            self._nvml.nvmlInit()
            count = int(self._nvml.nvmlDeviceGetCount())
            devices = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except self._nvml.NVMLError as error:
            raise AbsentError(f"no NVIDIA GPU: {error}") from None
        if not devices:
            raise AbsentError("no NVIDIA GPU: the driver shows none")
        self._readers: list[Callable[[], float]] = []
        channels: list[Channel] = []
        for index, device in enumerate(devices):
            for channel, reader in self._of(device, f"GPU {index}"):
                channels.append(channel)
                self._readers.append(reader)
        self.channels: Sequence[Channel] = tuple(channels)
        self._devices = devices
        self._energy = [self._joules(device) for device in devices]

    def read(self, seconds: float) -> Sequence[float | None]:
        """What each GPU tells now."""
        return [self._try(reader) for reader in self._readers]

    def totals(self) -> dict[str, float]:
        """Joules of each GPU that counts them (Volta and later)."""
        now = [self._joules(device) for device in self._devices]
        return {
            f"GPU {index}": end - start
            for index, (start, end) in enumerate(zip(self._energy, now, strict=True))
            if start is not None and end is not None
        }

    def _of(self, device: Any, name: str) -> list[tuple[Channel, Callable[[], float]]]:
        nvml = self._nvml
        total = self._try(lambda: float(nvml.nvmlDeviceGetMemoryInfo(device).total))
        offered: list[tuple[Channel, Callable[[], float]]] = [
            (
                Channel("GPU", name, "%", most=100),
                lambda: float(nvml.nvmlDeviceGetUtilizationRates(device).gpu),
            ),
            (
                Channel("GPU memory", name, "B", most=total),
                lambda: float(nvml.nvmlDeviceGetMemoryInfo(device).used),
            ),
            (
                Channel("power", name, "W"),
                lambda: nvml.nvmlDeviceGetPowerUsage(device) / 1e3,
            ),
        ]
        return [each for each in offered if self._try(each[1]) is not None]

    def _joules(self, device: Any) -> float | None:
        return self._try(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3)

    def _try(self, reader: Callable[[], float]) -> float | None:
        try:
            return reader()
        except self._nvml.NVMLError:
            return None
