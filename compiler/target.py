"""What a device offers: a frozen value, built from text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hybridc.compiler.cuda import driver
from hybridc.compiler.cuda import gpu as gpus
from hybridc.compiler.cuda.gpu import MOST_THREADS, WARP, Gpu
from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.hardware import host, instructions, machine, narrow
from hybridc.compiler.hardware.machine import Machine

# LLVM's own names for the levels of x86-64; code for a level runs on every CPU of that level.
TAGS = {"avx2": "x86-64-v3", "avx512": "x86-64-v4"}
CPU, CUDA = "cpu", "cuda"
# What a target in JSON may tell, as `parse` says; the last two stand in all that TVM writes, and
# mean nothing for the code.
KEYS = ("kind", "mcpu", "mattr", "num-cores", "caches", "machine", "gpu", "tag", "keys")
_LEAST = frozenset({"64bit", "sse2"})  # without them LLVM would end the process
# Host code of an artifact for a GPU that is not here runs on every CPU of the last ten years.
_PORTABLE = TAGS["avx2"]
# LLVM's.  Its third level took two thirds longer, made 25 % more code, and no model or kernel
# faster: loops that are to be unrolled are so before.
_OPTIMISATION = 2
_PAGE = 4096  # bytes


@dataclass(frozen=True)
class Target:
    """A CPU: instruction set, registers, caches (bytes), threads, and how fast a core is.

    Of kind `cuda`, these are facts of the host, and the device is `gpu`.  `vector_registers` are
    registers of `vector_bits`; both decide tile shapes.  `machine` holds what was measured of this
    host, or the defaults where nothing was, or another CPU is meant.
    `attributes` are features that differ from those of `cpu`, by LLVM's names after + or -: virtual
    machines hide some of their CPU's.  `near` is of the model that is compiled: whether its weights
    stay in the last cache from one run to the next (see `hardware.cached_weights`).
    """

    cpu: str
    features: frozenset[str]
    threads: int
    l1: int
    l2: int
    l3: int
    kind: str = CPU
    machine: Machine = field(default_factory=Machine)
    gpu: Gpu | None = None
    attributes: tuple[str, ...] = ()
    near: bool = False

    @property
    def vector_bits(self) -> int:
        """Width of the widest vector register."""
        if "avx512f" in self.features:
            return 512
        return 256 if "avx2" in self.features else 128

    @property
    def vector_registers(self) -> int:
        """How many vector registers the instruction set names."""
        return 32 if "avx512f" in self.features else 16

    @property
    def multiplies_bytes(self) -> bool:
        """Whether an instruction adds up four products of bytes in 32 bits (VNNI)."""
        return bool(self.features & {"avx512vnni", "avxvnni"})

    def rate(self, precision: str) -> float:
        """Products by the instruction for `precision` in the time of one in fp32; 1 without one."""
        return narrow.rate(precision, self.cpu, self.features, self.machine.bf16)

    def faster(self, precision: str) -> float:
        """How many products of `precision` take the time of one in fp32, by the faster way."""
        return narrow.faster(self.rate(precision))

    @property
    def l1_ways(self) -> int:
        """Associativity of the L1 data cache: 8 of 32 KB, 12 of 48 KB.

        x86 CPUs look a line up while its address is translated, by the bits within a page: a way
        is a page.
        """
        return max(1, self.l1 // _PAGE)

    def lanes(self, dtype: str = "float32") -> int:
        """Elements of `dtype` in one vector register."""
        bits = int("".join(c for c in dtype if c.isdigit()) or 8)
        return max(1, self.vector_bits // bits)

    @cached_property
    def tvm(self) -> Any:
        """The TVM target that generates code for this one."""
        from tvm.target import Target as TVMTarget

        host_code = {
            **instructions.code(self.cpu, self.attributes),
            "num-cores": self.threads,
            "opt-level": _OPTIMISATION,
        }
        if self.gpu is None:
            return TVMTarget(host_code)
        return TVMTarget(
            {
                "kind": "cuda",
                "arch": self.gpu.arch,
                "max_threads_per_block": MOST_THREADS,
                "max_num_threads": MOST_THREADS,
                "max_shared_memory_per_block": self.gpu.shared_per_block,
                "thread_warp_size": WARP,
                "l2_cache_size_bytes": self.gpu.l2,
                "host": host_code,
            }
        )

    @property
    def device(self) -> Gpu:
        """The GPU of a target of kind `cuda`; on no other kind may one ask for it."""
        assert self.gpu is not None, "the target is no GPU"
        return self.gpu

    def describe(self) -> dict[str, Any]:
        """The target as JSON data, for manifests and reports."""
        device = {"gpu": self.gpu.describe()} if self.gpu else {}
        attributes = {"mattr": list(self.attributes)} if self.attributes else {}
        return {
            **device,
            **attributes,
            "kind": self.kind,
            "cpu": self.cpu,
            "features": sorted(self.features),
            "threads": self.threads,
            "caches": [self.l1, self.l2, self.l3],
            "machine": self.machine.to_json(),
        }


def described(data: Mapping[str, Any]) -> Target:
    """The target that `Target.describe` tells of.

    Raises InputError if LLVM does not know its CPU.
    """
    return _from_json({**data, "mcpu": data["cpu"]}, data["threads"])


def kind_of(text: str) -> str:
    """The kind of target that a text names; TVM is not asked."""
    return CUDA if text == CUDA or gpus.is_name(text) else CPU


def parse(text: str, threads: int | None = None) -> Target:
    """Read `cpu` (this host), a tag (`avx2`, `avx512`), a GPU or a TVM target in JSON.

    A GPU is `cuda` (the first of this host), a board (`nvidia/h100`) or an architecture
    (`sm_90a`); what is named is compiled for without being there.  To the keys of TVM (`mcpu`,
    `mattr`, `num-cores`) come two of ours, as `Target.describe` gives them: `caches` and `machine`.
    With them a compilation for one machine is repeated on another.
    Raises InputError if the text names no target that can be compiled for.
    """
    if text.lstrip().startswith("{"):
        return _from_json(_read_json(text), threads)
    if text == "cpu":
        here = _cpu(None, threads)
        return replace(here, machine=machine.known(here.cpu, here.threads, here.vector_bits))
    if text in TAGS:
        return _cpu(TAGS[text], threads)
    if text == CUDA:
        return replace(_cpu(None, threads), kind=CUDA, gpu=_gpu_here())
    if gpus.is_name(text):
        return replace(_cpu(_PORTABLE, threads), kind=CUDA, gpu=gpus.named(text))
    if instructions.is_cpu(text):
        written = json.dumps({"kind": "llvm", "mcpu": text})
        raise InputError(f"the CPU {text} is a target in JSON: {written}")
    known = [CPU, CUDA, *TAGS, *gpus.names()]
    raise InputError(f"target {text!r} is not supported; {hint(text, known)}, or TVM JSON")


def _gpu_here() -> Gpu:
    try:
        return driver.first().gpu
    except driver.NoGpuError as error:
        raise InputError(
            f"target cuda is the GPU of this host, but {error}; to compile for one that is"
            " elsewhere, name it: nvidia/h100, sm_80, …"
        ) from None


def _read_json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"target is not valid JSON: {error}") from None
    if not isinstance(document, dict) or document.get("kind") != "llvm":
        raise InputError(f'a target in JSON needs "kind": "llvm", got {text:.60}')
    if (unknown := next((key for key in document if key not in KEYS), None)) is not None:
        raise InputError(f"a target in JSON has no {unknown!r}; {hint(unknown, KEYS)}")
    cores = document.get("num-cores", 1)
    if type(cores) is not int or not 0 < cores < 2**31:  # to Python, true is 1 too
        raise InputError(f'a target\'s "num-cores" must be a positive number, got {cores!r:.60}')
    if not isinstance(document.get("mcpu", ""), str):
        raise InputError(
            f'a target\'s "mcpu" must be the name of a CPU, got {document["mcpu"]!r:.60}'
        )
    return document


def _from_json(document: dict[str, Any], threads: int | None) -> Target:
    attributes = _attributes(document.get("mattr", []))
    named = _cpu(document.get("mcpu"), threads or document.get("num-cores"), attributes)
    if "machine" in document:
        named = replace(named, machine=machine.from_json(document["machine"]))
    if "gpu" in document:
        named = replace(named, kind=CUDA, gpu=gpus.from_json(document["gpu"]))
    match document.get("caches", [named.l1, named.l2, named.l3]):
        case [int(l1), int(l2), int(l3)] if 0 < l1 <= l2 <= l3:
            return replace(named, l1=l1, l2=l2, l3=l3)
        case other:
            raise InputError(f"a target's caches must be three sizes in bytes, got {other!r:.60}")


def _attributes(found: object) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InputError(f'a target\'s "mattr" must be a list of texts, got {found!r:.60}')
    for each in found:
        if each[:1] not in ("+", "-"):
            raise InputError(
                f'a target\'s "mattr" adds +FEATURE or takes -FEATURE, got {each!r:.60}'
            )
        if each[1:] not in (known := instructions.all_features()):
            raise InputError(f"LLVM knows no feature {each[1:]!r:.60}; {hint(each[1:], known)}")
    return tuple(found)


def _cpu(cpu: str | None, threads: int | None, attributes: tuple[str, ...] = ()) -> Target:
    name, differs = (cpu, ()) if cpu else instructions.here()
    if not instructions.is_cpu(name):
        raise InputError(f"LLVM knows no CPU {name!r}; {hint(name, instructions.cpus())}")
    attributes = (*differs, *attributes)
    named = instructions.features(name, attributes)
    if not named >= _LEAST:
        raise InputError(
            f"CPU {name!r}{' '.join(('', *attributes))} is 32-bit or has no SSE2; code is generated"
            " only for 64-bit CPUs"
        )
    features = frozenset(named & host.ISA_FEATURES)
    l1, l2, l3 = host.cache_sizes()
    plain = Target(name, features, threads or host.cores(), l1, l2, l3, attributes=attributes)
    return replace(plain, machine=machine.unprobed(name, plain.vector_bits))
