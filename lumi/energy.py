"""What a device has drawn, in joules, where it can be read: a GPU by NVML, the processor by RAPL.

NVML needs the package ``nvidia-ml-py``. RAPL counts the whole processor package, so other programs count too, and most systems
let only root read it.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")

Meter = Callable[[], float]
"""Joules since some moment; only differences mean something."""


def energy_meter(device: torch.device, powercap: Path = POWERCAP) -> tuple[Meter | None, str]:
    """A meter for the device, or None, and in words what it reads or why there is none."""
    return _gpu(device) if device.type == "cuda" else _processor(powercap)


def _gpu(device: torch.device) -> tuple[Meter | None, str]:
    try:
        nvml = importlib.import_module("pynvml")
    except ModuleNotFoundError:
        return None, "not readable: pip install nvidia-ml-py"
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError as error:
        return None, f"not readable: {error}"
    return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000, "of the GPU, by NVML"


def _processor(powercap: Path) -> tuple[Meter | None, str]:
    """The sum of all packages: ``intel-rapl:0``, ``intel-rapl:1`` …; their parts (``intel-rapl:0:0``) are in it already."""
    packages = sorted(path for path in powercap.glob("*-rapl:*") if path.name.count(":") == 1)
    if not packages:
        return None, f"not readable: there is no counter in {powercap}"
    try:
        counters = [_Counter(path) for path in packages]
    except OSError as error:
        return None, f"not readable: {error.strerror} ({packages[0] / 'energy_uj'})"
    return lambda: sum(counter.joules() for counter in counters), "of the processor and all that runs on it, by RAPL"


class _Counter:
    """One package's counter, in microjoules, which begins again at zero every few minutes."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last, self._total = self._read(), 0

    def _read(self) -> int:
        return int(self._file.read_text())

    def joules(self) -> float:
        now = self._read()
        self._total += now - self._last if now >= self._last else now + self._range - self._last
        self._last = now
        return self._total / 1e6
