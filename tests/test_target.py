"""Instruction sets: what this host offers, where LLVM believes something else, and `mattr`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hybridc.compiler import driver, target
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError
from hybridc.compiler.hardware import cpuid, host, instructions
from hybridc.compiler.log import keys

AVX2 = frozenset(
    {"sse4.2", "popcnt", "movbe", "lzcnt", "bmi", "bmi2", "avx", "avx2", "fma", "f16c"}
)
AVX512 = AVX2 | {f"avx512{part}" for part in ("f", "bw", "cd", "dq", "vl")}
SAPPHIRE_RAPIDS = (
    AVX512
    | {"avxvnni", "gfni", "vaes", "vpclmulqdq"}
    | {
        f"avx512{part}"
        for part in ("vnni", "bf16", "fp16", "ifma", "vbmi", "vbmi2", "bitalg", "vpopcntdq")
    }
)
ZEN_4 = SAPPHIRE_RAPIDS - {"avx512fp16", "avxvnni"} | {"sse4a"}


def here(monkeypatch: pytest.MonkeyPatch, named: str, offered: frozenset[str]) -> target.Target:
    """The target `cpu` on a host that LLVM gives a name, and that offers these."""
    monkeypatch.setattr(instructions, "system_cpu", lambda: named)
    monkeypatch.setattr(host, "cpu_features", lambda: offered)
    return target.parse("cpu", 2)


@pytest.mark.parametrize(
    ("named", "offered", "bits"),
    [
        ("haswell", AVX2, 256),
        ("haswell", AVX2 - {"avx2", "fma", "f16c", "bmi2"}, 128),
        ("haswell", frozenset(), 128),
        ("skylake-avx512", AVX512, 512),
        ("skylake-avx512", AVX2, 256),
        ("sapphirerapids", SAPPHIRE_RAPIDS, 512),
        ("sapphirerapids", AVX2 | {"avxvnni"}, 256),
        ("znver4", ZEN_4, 512),
        ("diamondrapids", SAPPHIRE_RAPIDS, 512),  # a Linux that does not know the registers of APX
        ("generic", AVX2, 256),
        ("generic", SAPPHIRE_RAPIDS, 512),
        ("generic", frozenset({"sse4.2", "popcnt"}), 128),
        ("k8-sse3", AVX2 | {"avxvnni"}, 256),  # what an emulator calls its CPU
    ],
)
def test_code_uses_what_the_host_offers(
    named: str, offered: frozenset[str], bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = here(monkeypatch, named, offered)
    assert found.features == offered - {"sse4a"}
    assert found.vector_bits == bits
    generated = instructions.features(found.cpu, found.attributes)
    assert generated & host.ISA_FEATURES == found.features
    assert target.described(found.describe()) == found


def test_a_feature_without_what_it_builds_upon_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """To LLVM one brings the other along, and the host does not offer that."""
    found = here(monkeypatch, "generic", AVX512 - {"avx512f"})
    assert found.features == AVX2


def test_the_name_of_a_cpu_stays_where_it_stands_for_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LLVM schedules for it."""
    assert here(monkeypatch, "sapphirerapids", AVX2).cpu == "sapphirerapids"
    assert here(monkeypatch, "haswell", AVX2).attributes == ()
    assert here(monkeypatch, "generic", AVX2).cpu == "x86-64-v3"
    assert here(monkeypatch, "generic", frozenset()).cpu == "generic"
    more = here(monkeypatch, "cascadelake", AVX512 | {"avx512vnni", "avx512bf16"})
    assert (more.cpu, more.attributes) == ("cascadelake", ("+avx512bf16",))


def test_what_is_hidden_is_in_no_code(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    import tvm
    from tvm.script import from_source

    text = """
@T.prim_func(s_tir=True)
def main(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
    for i in range(64):
        with T.sblock("y"):
            vi = T.axis.spatial(64, i)
            y[vi] = x[vi] * x[vi] + T.float32(1)
"""
    for offered, registers in ((AVX512, "zmm"), (AVX2, "ymm"), (frozenset[str](), "xmm")):
        schedule = tvm.s_tir.Schedule(from_source(text))
        schedule.vectorize(schedule.get_loops(schedule.get_sblock("y"))[0])
        chosen = here(monkeypatch, "skylake-avx512", offered).tvm
        code = tvm.compile(schedule.mod, target=chosen).mod.inspect_source("asm")
        wider = {"zmm": (), "ymm": ("zmm",), "xmm": ("zmm", "ymm")}[registers]
        assert f"%{registers}" in code
        assert not any(f"%{each}" in code for each in wider)


def test_an_artifact_is_rebuilt_for_the_same_instructions(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    offered = host.cpu_features()
    whole = target.parse("cpu")
    monkeypatch.setattr(host, "cpu_features", lambda: offered - {"popcnt"})
    driver.compile_source(tiny_model, Options(threads=1)).artifact.save(tmp_path / "m.hyb")
    made = Artifact.load(tmp_path / "m.hyb")
    assert "-popcnt" in made.target["mattr"]
    assert "popcnt" not in made.target["features"]
    monkeypatch.undo()
    assert target.parse("cpu") == whole
    locked = driver.compile_source(tiny_model, Options(lock=tmp_path / "m.hyb", threads=1))
    assert locked.report.to_json()["records"]["differs"] == []
    told = dict(made.target)
    given = {"kind": "llvm", "mcpu": told["cpu"], "num-cores": 1}
    given |= {key: told[key] for key in ("mattr", "caches", "machine")}
    again = driver.compile_source(tiny_model, Options(target=json.dumps(given))).artifact
    assert again.library == made.library


def test_a_kernel_is_measured_with_the_instructions_of_its_model(tmp_path: Path) -> None:
    from kernel_corpus import KERNELS

    from hybridc.compiler.tuning.kernel import Kernel
    from hybridc.schedules.recurrence import Recurrence

    text = json.dumps({"kind": "llvm", "mcpu": "skylake-avx512", "mattr": ["-avx512f", "-gfni"]})
    device = target.parse(text, 1)
    (func,) = dict(KERNELS)["long short-term memory"](device)
    made = Kernel("k", func, Recurrence(), device, "")
    made.save(tmp_path / "kernel.json")
    assert replace(Kernel.load(tmp_path / "kernel.json").target, near=False) == device
    assert device.attributes == ("-avx512f", "-gfni")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("+avx2", "a target's \"mattr\" must be a list of texts, got '\\+avx2'"),
        (None, 'a target\'s "mattr" must be a list of texts, got None'),
        ([1], r'a target\'s "mattr" must be a list of texts, got \[1\]'),
        (["avx2"], "a target's \"mattr\" adds \\+FEATURE or takes -FEATURE, got 'avx2'"),
        ([""], "adds \\+FEATURE or takes -FEATURE, got ''"),
        (["+avx512ff"], "LLVM knows no feature 'avx512ff'; did you mean 'avx512f'"),
        (["-sse2"], "CPU 'x86-64-v3' -sse2 is 32-bit or has no SSE2"),
        (["-64bit"], "CPU 'x86-64-v3' -64bit is 32-bit or has no SSE2"),
    ],
)
def test_wrong_attributes_are_refused(given: object, said: str) -> None:
    text = json.dumps({"kind": "llvm", "mcpu": "x86-64-v3", "mattr": given})
    with pytest.raises(InputError, match=said):
        target.parse(text)


def test_the_name_of_a_cpu_is_led_to_json() -> None:
    with pytest.raises(InputError, match="the CPU znver4 is a target in JSON: ") as told:
        target.parse("znver4")
    assert target.parse(str(told.value).partition(": ")[2]).cpu == "znver4"


def test_attributes_of_ones_own_come_after_those_of_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here(monkeypatch, "sapphirerapids", SAPPHIRE_RAPIDS)
    found = target.parse('{"kind": "llvm", "mattr": ["-avx512f"]}')
    assert found.attributes[-1] == "-avx512f"
    assert found.features < SAPPHIRE_RAPIDS
    assert found.vector_bits == 256


def test_keys_of_the_log_are_of_what_decides_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that are there stay good, whatever else turns out to be in a CPU."""
    data = keys.of_target(target.parse("avx2")).data
    assert data["features"] == ["avx", "avx2", "bmi2", "f16c", "fma", "sse4.2"]
    whole = keys.of_target(here(monkeypatch, "sapphirerapids", SAPPHIRE_RAPIDS))
    assert keys.of_target(here(monkeypatch, "sapphirerapids", SAPPHIRE_RAPIDS - {"gfni"})) == whole
    assert keys.of_target(here(monkeypatch, "sapphirerapids", AVX512)) != whole


def test_the_cpu_and_linux_agree() -> None:
    assert cpuid.features() == host.cpu_features() & cpuid.NAMES
    assert cpuid.NAMES <= host.ISA_FEATURES


def test_without_flags_in_proc_the_cpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = host.cpu_features() & cpuid.NAMES
    monkeypatch.setattr(host, "read", lambda _: "Features : fp asimd evtstrm\n")
    assert host.cpu_features.__wrapped__() == expected


def caches(root: Path, cpu: int, *sizes: str) -> None:
    for number, size in enumerate(sizes):
        folder = root / f"cpu{cpu}/cache/index{number}"
        folder.mkdir(parents=True)
        for name, text in (("level", f"{number + 1}"), ("type", "Unified"), ("size", size)):
            (folder / name).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (("48K", "2M", "260M"), (48 * 2**10, 2**21, 260 * 2**20)),
        ((), (2**15, 2**20, 2**24)),
        (("48K", "0K", "0K"), (48 * 2**10, 2**20, 2**24)),
        (("48K", "-1", "K"), (48 * 2**10, 2**20, 2**24)),
        (("32K", "32M"), (2**15, 2**25, 2**25)),  # no level is smaller than the one before it
        (("4M",), (2**22, 2**22, 2**24)),
    ],
)
def test_sizes_of_caches(
    sizes: tuple[str, ...],
    expected: tuple[int, int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A target with them can be described and read again."""
    monkeypatch.setattr(host, "_CPUS", tmp_path)
    monkeypatch.setattr(host, "allowed_cpus", lambda: frozenset({3, 5}))
    caches(tmp_path, 0, "1K", "1K", "1K")  # which this process does not run on
    caches(tmp_path, 3, *sizes)
    assert host.cache_sizes.__wrapped__() == expected
