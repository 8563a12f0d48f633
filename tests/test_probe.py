"""The kernels that measure the machine do the work that is counted, by their assembly."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridc.cli import main as entry
from hybridc.compiler import target
from hybridc.compiler.hardware import host, load, machine, peaks, probe, probe_kernels
from hybridc.compiler.hardware.machine import Machine
from hybridc.compiler.hardware.peaks import Peaks
from hybridc.compiler.installation import doctor

FACTS = Machine(1.0, 3.6e9, 60.0, 40.0, 12.0, 4.0, 5000.0, measured=True)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Compiles and runs each kernel once instead of timing it."""
    import tvm

    found: dict[str, Any] = {}

    def fastest(module: Any, chosen: Any, *arguments: Any) -> float:
        built = tvm.compile(module, target=chosen.tvm)
        found.update(asm=built.mod.inspect_source("asm"), arguments=arguments)
        built.jit()["main"](*arguments)
        return 1.0

    monkeypatch.setattr(probe_kernels, "_fastest", fastest)
    return found


@pytest.mark.parametrize(
    ("dtype", "instruction"),
    [
        ("float32", "vfmadd"),
        ("bfloat16", "vdpbf16ps"),
        ("int8", "vpdpbusd"),
        ("int8", "vpmaddubsw"),
    ],
)
def test_multiply_adds_stay_in_registers(
    dtype: str, instruction: str, seen: dict[str, Any]
) -> None:
    windows = instruction == "vpmaddubsw"
    here = target.parse("avx2" if windows else "cpu", 1)
    if instruction == "vpdpbusd" and not here.multiplies_bytes:
        pytest.skip("this CPU has no VNNI")
    rate = probe_kernels.flops(here, dtype)
    if rate is None:
        pytest.skip(f"this CPU has no {instruction}")
    found = re.findall(rf"^\s+{instruction}\w*\s.*$", seen["asm"], re.MULTILINE)
    chains = 8 if windows else probe_kernels.CHAINS
    assert len(found) >= chains
    assert not [line for line in found if "(" in line], "an operand in memory"
    products = {"vfmadd": 1, "vdpbf16ps": 2, "vpmaddubsw": 8, "vpdpbusd": 4}[instruction]
    wanted = 2 * here.lanes() * chains * products * probe_kernels.STEPS
    assert rate == wanted


def test_dot_products_add_what_they_should(
    seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_kernels, "STEPS", 3)
    here = target.parse("cpu", 1)
    if not here.multiplies_bytes:
        pytest.skip("this CPU has no VNNI")
    probe_kernels.flops(here, "int8")
    np.testing.assert_array_equal(seen["arguments"][1].numpy(), 3 * 4 * 1 * 1)


def test_old_cpus_have_no_dot_products() -> None:
    old = target.parse('{"kind": "llvm", "mcpu": "x86-64-v2"}', 1)
    assert probe_kernels.flops(old, "bfloat16") is None
    assert probe_kernels.flops(old, "int8") is None


def test_streams_read_what_is_counted(
    seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_kernels, "_STREAMED", 3 * 2**20)
    here = target.parse("cpu", 2)
    rate = probe_kernels.stream(here, 2**20)
    data, result = seen["arguments"]
    assert data.shape[0] == 2
    size = int(np.prod(data.shape[1:])) * 4
    steps = rate / size
    assert steps == 3 * 2**20 // size
    assert 0.9 * 2**20 < size <= 2**20
    np.testing.assert_array_equal(result.numpy(), steps * data.shape[1])  # each row of ones, added


def test_the_chain_is_not_shortened(seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_kernels, "STEPS", 5)
    probe_kernels.hertz(target.parse("cpu", 1))
    value = factor = 1664525
    for step in range(50):
        value = ((value ^ step) * factor) & 0xFFFFFFFF
    assert int(seen["arguments"][0].numpy()[0, 0]) & 0xFFFFFFFF == value
    assert "imull" in seen["asm"]


def test_working_sets_lie_in_their_caches() -> None:
    here = target.parse("cpu", 2)
    first, second, third = probe.working_sets(here)
    assert first < here.l1 < second < here.l2 < third
    assert 2 * third <= max(here.l3, 4 * here.l2)


def test_a_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_kernels, "_REPEATS", 2)
    found = probe.measure(replace(target.parse("cpu", 1), l3=2**22))  # some have gigabytes
    assert found.measured
    assert found == machine.from_json(json.loads(json.dumps(found.to_json())))
    assert found.fma_per_cycle in (0.5, 1.0, 2.0)


@pytest.mark.parametrize(
    ("rate", "units", "hertz"),
    [(1.62, 2.0, 2.79e9), (1.95, 2.0, 3.35e9), (0.98, 1.0, 3.37e9), (1.1, 1.0, 3.44e9)],
)
def test_cycles_are_those_of_a_core_that_multiplies_wide_vectors(
    rate: float, units: float, hertz: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks that vectors slow down make no half units."""
    here, clock = target.parse("cpu", 1), 3.44e9
    monkeypatch.setattr(probe_kernels, "hertz", lambda _: clock)
    flops = rate * clock * 2 * here.lanes()
    rates = {"float32": flops, "bfloat16": 0.49 * flops}
    monkeypatch.setattr(probe_kernels, "flops", lambda _, dtype="float32": rates[dtype])
    monkeypatch.setattr(probe_kernels, "stream", lambda *_: 50 * clock)
    found = probe.measure(here)
    assert (found.fma_per_cycle, found.hertz, found.bf16) == (units, hertz, 0.5)
    assert found.l2_bytes_per_cycle == float(f"{50 * clock / found.hertz:.2g}")


@pytest.mark.parametrize(("busy", "status"), [(0.0, "ok"), (1.0, "note")])
def test_the_doctor_keeps_what_a_quiet_machine_showed(
    busy: float,
    status: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HYBRIDC_CACHE", str(tmp_path))
    monkeypatch.setattr(load.Load, "others", lambda _: busy)
    monkeypatch.setattr(peaks, "measure", lambda _: Peaks(236e9, 31e9, 470e9, None))
    monkeypatch.setattr(probe, "measure", lambda _: FACTS)
    monkeypatch.setattr(doctor, "examine", list)
    assert entry.run(["doctor", "--probe", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["probe"]["status"] == status
    assert checks["peaks"]["found"] == ("236 GFLOP/s fp32, 470 GFLOP/s bf16, 31.0 GB/s from memory")
    assert "3.60 GHz, 1 vector multiply-adds and 60/40/12/4 bytes" in checks["core"]["found"]
    here = target.parse("cpu")
    known = machine.known(here.cpu, host.cores(), here.vector_bits)
    assert (known == FACTS) == (status == "ok")


def test_peaks_are_told_where_nobody_can_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDC_CACHE", "/proc/nowhere")
    monkeypatch.setattr(peaks, "measure", lambda _: Peaks(1e9, 2e9))
    monkeypatch.setattr(load.Load, "others", lambda _: 0.0)
    here = target.parse("avx2", 1)
    assert peaks.peaks(here) == Peaks(1e9, 2e9)
    assert peaks.known(here) is None
