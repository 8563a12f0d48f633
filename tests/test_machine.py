"""The facts of a machine: defaults, what is kept, what is refused, and where they are told."""

import json
from pathlib import Path

import pytest

from hybridc.compiler import target
from hybridc.compiler.errors import InputError
from hybridc.compiler.hardware import machine
from hybridc.compiler.hardware.machine import Machine
from hybridc.schedules.products import cache_sets

FACTS = Machine(1.0, 3.6e9, 60.0, 40.0, 12.0, 4.0, 5000.0, measured=True)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDC_CACHE", str(tmp_path))


def test_a_machine_that_nobody_probed_has_the_defaults() -> None:
    here = target.parse("cpu")
    assert here.machine == machine.unprobed(here.cpu, here.vector_bits)
    assert target.parse("avx2").machine == Machine()
    assert not Machine().measured


@pytest.mark.parametrize(
    ("cpu", "bits", "multiply_adds", "l3"),
    [
        ("znver4", 512, 1.0, 16.0),
        ("znver5", 512, 2.0, 16.0),
        ("emeraldrapids", 512, 2.0, 9.0),
        ("icelake-server", 512, 2.0, 9.0),
        ("icelake-client", 512, 1.0, 16.0),
        ("x86-64-v4", 512, 1.0, 16.0),
        ("haswell", 256, 2.0, 16.0),
        ("skylake-avx512", 256, 2.0, 16.0),  # as it is where AVX-512 is hidden
    ],
)
def test_a_family_of_cpus_has_its_own(cpu: str, bits: int, multiply_adds: float, l3: float) -> None:
    known = machine.unprobed(cpu, bits)
    assert (known.fma_per_cycle, known.l3_bytes_per_cycle) == (multiply_adds, l3)
    assert known.streams == (4 if l3 < 10 else 2)


@pytest.mark.parametrize(("size", "ways"), [(32, 8), (48, 12)])
def test_rows_share_the_sets_of_a_first_cache_whose_ways_are_pages(size: int, ways: int) -> None:
    caches = [size * 2**10, 2**21, 2**25]
    text = json.dumps({"kind": "llvm", "mcpu": "x86-64-v4", "caches": caches})
    cpu = target.parse(text)
    assert cpu.l1_ways == ways
    assert cache_sets.crowded_lines(4096, 14, cpu) == 14 - ways
    assert cache_sets.crowded_lines(2048, 14, cpu) == 0
    assert cache_sets.distinct(64, cpu) == 64


def test_what_was_kept_is_used_for_this_host_alone() -> None:
    here = target.parse("cpu", 2)
    machine.keep(FACTS, 2, here.vector_bits)
    assert target.parse("cpu", 2).machine == FACTS
    unprobed = machine.unprobed(here.cpu, here.vector_bits)
    assert target.parse("cpu", 3).machine == unprobed  # threads share memory
    assert target.parse("avx2", 2).machine == Machine()  # code for any CPU of that level
    machine.keep(Machine(), 3, here.vector_bits)
    assert target.parse("cpu", 2).machine == FACTS


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", '{"a": 1}', '{"a": {"hertz": -1}}', "\0"),
        pytest.param("[" * 10**5, id="deep"),
    ],
)
def test_a_damaged_file_counts_as_nothing_measured(text: str, tmp_path: Path) -> None:
    (tmp_path / "machine.json").write_text(text)
    assert machine.known("znver4", 2, 512) == machine.unprobed("znver4", 512)
    machine.keep(FACTS, 2, 512)
    assert machine.known("znver4", 2, 512) == FACTS


def test_the_description_of_a_target_builds_it_again() -> None:
    machine.keep(FACTS, 2, target.parse("cpu", 2).vector_bits)
    here = target.parse("cpu", 2)
    told = here.describe()
    assert told["machine"] == FACTS.to_json()
    given = {"kind": "llvm", "mcpu": told["cpu"], "num-cores": told["threads"]}
    given |= {"mattr": told.get("mattr", []), "caches": told["caches"], "machine": told["machine"]}
    assert target.parse(json.dumps(given)) == here


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"machine": {"herz": 1}}, "a machine is described by fma_per_cycle, hertz"),
        ({"machine": {"hertz": "fast"}}, "a machine's hertz is a positive number, got 'fast'"),
        ({"machine": {"streams": 3}}, "a machine's streams is 1, 2, 4 or 8, got 3"),
        ({"machine": {"measured": 1}}, "a machine's measured is true or false, got 1"),
        ({"machine": []}, "a machine is described by"),
        ({"caches": [1, 2]}, "caches must be three sizes in bytes"),
        ({"caches": [4096, 2048, 1024]}, "caches must be three sizes in bytes"),
        (
            {"mcpu": "abacus"},
            r"no CPU 'abacus'; known: (?:[\w-]+, ){7}[\w-]+ and \d+ more$",
        ),
        ({"mcpu": 5}, 'a target\'s "mcpu" must be the name of a CPU, got 5'),
        ({"mcpu": "i386"}, "CPU 'i386' is 32-bit"),
        ({"mtriple": "aarch64"}, "a target in JSON has no 'mtriple'; known: caches"),
        ({"": 1}, "a target in JSON has no ''; known: caches"),
        ({"num-cores": True}, 'a target\'s "num-cores" must be a positive number, got True'),
        ({"num-cores": 2**70}, 'a target\'s "num-cores" must be a positive number'),
    ],
)
def test_wrong_facts_are_refused(given: dict[str, object], said: str) -> None:
    text = json.dumps({"kind": "llvm", "mcpu": "x86-64-v3", **given})
    with pytest.raises(InputError, match=said):
        target.parse(text)
