"""Goldens of the CUDA rules; see `cuda_golden.py` for what they hold and how they are updated."""

import shutil

import cuda_golden
import pytest

from hybridc.compiler import pipeline, plugin

NVCC = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")


@NVCC
@pytest.mark.parametrize("name", cuda_golden.CASES)
def test_a_rule_writes_what_it_wrote(name: str, request: pytest.FixtureRequest) -> None:
    path = cuda_golden.FOLDER / f"{name.replace('-', '_')}.txt"
    got = "\n".join(cuda_golden.text_of(name)) + "\n"
    if request.config.getoption("--update-golden"):
        path.write_text(got)
    else:
        assert got == path.read_text()


def test_every_rule_has_a_golden_and_none_spills() -> None:
    rules = {plugin.name_of(type(rule)) for rule in pipeline.rules(device="cuda")}
    assert rules == {case.rule or name for name, case in cuda_golden.CASES.items()}
    files = sorted(cuda_golden.FOLDER.glob("*.txt"))
    assert {path.stem.replace("_", "-") for path in files} == set(cuda_golden.CASES)
    for path in files:
        assert ".local" not in path.read_text().splitlines()[-1]
