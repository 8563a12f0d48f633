"""Clusters of blocks, and addresses in what they share, by the source alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import cuda_golden
import cuda_text
import pytest
from cuda_emulator import source_of
from cuda_kernels import gpu, sample
from kernel_builders import Builder
from test_gpu import KERNELS

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.cuda.gpu import MOST_CLUSTERED
from hybridc.compiler.cuda.resources import Launch
from hybridc.compiler.interfaces import NotApplicable, Point, ScheduleRule

ARCH = "sm_90a"
BUILDERS: dict[str, Builder] = {
    **{f"golden of {name}": case.builder for name, case in cuda_golden.CASES.items()},
    **KERNELS,
}
# What reads by an address of any kind; copies, `ldmatrix` and `wgmma` take the block's own alone.
_READS = {"hybridc_get", "hybridc_load4", "hybridc_add4"}
# An instruction's operand, or without what tells the block of the cluster.
_NUMBERS = re.compile(r'"r"\(hybridc_shared\(\w+\)\)|\(hybridc_shared\(\w+\) & 0x3FFFF\)')


@dataclass(frozen=True)
class Scheduled:
    """What a rule makes of a kernel at a point."""

    said: str
    source: str
    launches: tuple[Launch, ...]

    @property
    def kernels(self) -> str:
        """The source without the prelude."""
        return self.source[self.source.index('extern "C" __global__') :]


@cache
def scheduled(name: str) -> list[Scheduled]:
    """A kernel by all the rules that take it, at some points each."""
    device, made = gpu(ARCH), list[Scheduled]()
    for func in BUILDERS[name](device):
        for rule in pipeline.rules(device="cuda"):
            match: Any = rule.match(func, device)
            if isinstance(match, NotApplicable):
                continue
            for point in points(rule, match):
                found = source_of(rule.schedule(match, point).mod["main"], device)
                made.append(Scheduled(f"{plugin.name_of(type(rule))} {point}", *found))
    return made


def points(rule: ScheduleRule, match: Any) -> Iterator[Point]:
    """The default, some that are drawn, and the default divided as much as it can be."""
    knobs, default = rule.knobs(match), rule.default(match, gpu(ARCH))
    yield from sample(knobs, default, 2)
    if "splits" in knobs:
        yield rule.canonical(match, {**default, "splits": max(knobs["splits"])})


@pytest.mark.parametrize("name", BUILDERS)
def test_clusters_are_whole_and_shared_memory_is_addressed_by_few(name: str) -> None:
    """Of one kernel all at once: tests that run beside each other would schedule it again."""
    for one in scheduled(name):
        check_clusters(one)
        check_neighbours(one)
        check_addresses(one)


def check_clusters(one: Scheduled) -> None:
    """They are whole, and of eight blocks at most."""
    clusters = cuda_text.clusters(one.kernels)
    for launch in one.launches:
        blocks = clusters[launch.kernel]
        assert blocks <= MOST_CLUSTERED, one.said
        assert launch.grid[0] % blocks == 0, one.said


def check_neighbours(one: Scheduled) -> None:
    """What lies in another block is only read."""
    assert set(callers(one.kernels, "hybridc_beside")) <= _READS, one.said


def check_addresses(one: Scheduled) -> None:
    """An address in shared memory becomes a number nowhere else than where it is known to."""
    # All of its mentions but the definition, which is absent where nothing of ours is called.
    used = one.source.count("hybridc_shared(") - one.source.count("hybridc_shared(const")
    assert len(_NUMBERS.findall(one.source)) == used, one.said
    assert one.source.count("__cvta_generic_to_shared") <= 1
    assert "uintptr_t" not in one.source


def test_kernels_with_clusters_and_descriptors_are_among_these() -> None:
    sources = [one for name in BUILDERS for one in scheduled(name)]
    clustered = [one for one in sources if max(cuda_text.clusters(one.kernels).values()) > 1]
    assert {one.said.split()[0] for one in clustered} >= {
        "cuda-attention",
        "cuda-matmul",
        "cuda-tensor-matmul",
        "cuda-thin-matmul",
        "cuda-wgmma-matmul",
    }
    assert any("hybridc_descriptor" in one.source for one in clustered)
    assert any(callers(one.kernels, "hybridc_beside") for one in clustered)


def callers(text: str, name: str) -> list[str]:
    """The functions of ours in whose calls a function's calls stand as arguments."""
    return [_around(text, found.start()) for found in re.finditer(rf"{name}\(", text)]


def _around(text: str, at: int) -> str:
    """The innermost function that is called around a place."""
    depth = 0
    for place in range(at - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(text[place], 0)
        if depth < 0:
            depth = 0
            if called := re.search(r"(hybridc_\w+)(<[\w, ]+>)?$", text[max(0, place - 80) : place]):
                return called[1]
    return ""
