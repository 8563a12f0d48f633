"""No kernel of the zoo is left to the generic rule on a GPU, where it takes a hundred times."""

import pytest
from cuda_models import scheduled
from zoo import ZOO

from hybridc.compiler import frontend
from hybridc.compiler.configuration.plans import Options

FAST = ("lstm", "unet")
DTYPE = "fp16"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in ZOO],
)
def test_no_kernel_is_left_to_the_generic_rule(name: str) -> None:
    animal = ZOO[name]()
    model = frontend.load(animal.source, example_inputs=animal.example_inputs, fallback=False)
    _, context = scheduled(model, Options(target="sm_90a", dtype=DTYPE))
    assert not [record.kernel for record in context.kernels if record.rule == "cuda-fallback"]
