"""Static quantisation: what it computes is near fp32, whatever the network is made of."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hybridc.compiler import driver, frontend, pipeline, target
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.interfaces import Context
from hybridc.compiler.model import Model
from hybridc.compiler.orchestration import precisions
from hybridc.compiler.orchestration.precisions import Insertion
from hybridc.compiler.quantization import activations, sensitivity
from hybridc.compiler.quantization.taps import Taps
from hybridc.passes.quantize import Quantize

nn = torch.nn
FRONT = "simplify-inference,fold-constants,fold-batch-norm,fuse-norms,fold-padding"


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a third where the shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        plain = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Any) -> Any:
        return torch.relu(self.body(x) + self.shortcut(x))


def residual() -> Any:
    """A small residual network."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        Block(8, 8, 1),
        Block(8, 16, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


class Mobile(nn.Module):
    """Depthwise and grouped windows, activations of many kinds, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.wide = nn.Conv2d(8, 24, 1)
        self.window = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.narrow = nn.Conv2d(24, 8, 1)
        self.grouped = nn.Conv2d(16, 12, 3, padding=2, dilation=2, groups=4)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Any) -> Any:
        act = nn.functional
        x = act.silu(self.stem(x))
        y = self.narrow(act.hardswish(self.window(act.relu6(self.wide(x)))))
        y = self.grouped(torch.cat([x + y, torch.relu(x)], 1))
        return self.head(y.mean((2, 3)))


def transformer(**options: Any) -> Any:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu", **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MODELS: dict[str, Any] = {
    "residual": (residual, (2, 3, 33, 29)),
    "mobile": (Mobile, (1, 3, 24, 20)),
    "transformer": (transformer, (1, 12, 32)),
    "pre-norm": (lambda: transformer(norm_first=True), (2, 7, 32)),
}


def loaded(name: str) -> tuple[Model, list[dict[str, Any]]]:
    """A model with random weights, and six samples for it."""
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model = frontend.load(make().eval(), example_inputs=(torch.randn(*shape),))
    draw = np.random.default_rng(1)
    (spec,) = model.inputs
    return model, [{spec.name: draw.standard_normal(shape).astype("float32")} for _ in range(6)]


@pytest.mark.parametrize(
    "name", ["residual", *(pytest.param(n, marks=pytest.mark.slow) for n in list(MODELS)[1:])]
)
def test_a_model_in_bytes_is_near_its_fp32(name: str) -> None:
    model, data = loaded(name)
    made = driver.compile_model(model, Options(threads=1, dtype="int8", calibration=data))
    certificate = made.artifact.certificate
    assert certificate["precision"] == "int8"
    assert certificate["calibration"]["samples"] == 3
    assert certificate["data"] == "calibration data, split, 3 samples"
    assert certificate["calibration"]["data_blake3"] != certificate["data_blake3"]
    products = [kernel for kernel in made.report.kernels if kernel.precision == "int8"]
    assert products
    assert all(k.rule != "fallback" for k in products)
    (agreement,) = made.report.agreement
    assert agreement["cosine"] > 0.995
    assert agreement["max_abs"] > 0


@pytest.mark.parametrize(
    ("rank", "convolution"), [(1, nn.Conv1d), (3, nn.Conv3d)], ids=["signals", "volumes"]
)
def test_convolutions_of_signals_and_volumes_are_of_bytes(rank: int, convolution: Any) -> None:
    torch.manual_seed(0)
    layers = [convolution(4, 16, 3, 2, 1), nn.ReLU(), convolution(16, 8, 3, padding=1)]
    x = torch.randn(1, 4, *[9] * rank)
    model = frontend.load(nn.Sequential(*layers).eval(), example_inputs=(x,))
    made = driver.compile_model(model, Options(threads=1, dtype="int8"))
    assert made.sensitive is not None
    operators = made.sensitive.operators
    assert [each.lowered for each in operators] == [True, True]
    assert sum(kernel.precision == "int8" for kernel in made.report.kernels) == 2


@pytest.mark.slow
def test_without_data_the_certificate_says_so() -> None:
    model, _ = loaded("residual")
    made = driver.compile_model(model, Options(threads=1, dtype="int8"))
    certificate = made.artifact.certificate
    assert certificate["calibration"]["data"].startswith("random")
    assert certificate["data"].startswith("random, seed 0")
    assert "ranges from random" in made.report.notes[-1]


def lowered(name: str, **options: Any) -> tuple[Any, Any, Context]:
    """The graph of a model before and after `quantize`, and the context of that."""
    model, data = loaded(name)
    calibration = activations.of_feeds(data, model.inputs, "test data", given=True)
    context = Context(target.parse("cpu", 1), pipeline.rules(), None, calibration)
    before = pipeline.run(pipeline.parse(FRONT), model.module, context)
    return before, pipeline.run([Quantize(**options)], before, context), context


@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual", "transformer"])
def test_switches_compute_what_the_quantised_graph_does(name: str) -> None:
    before, after, context = lowered(name, residuals=False)
    ones = np.ones(len(context.sensitive.operators), np.float32)
    feed = list(context.calibration.feeds[0])
    module = context.sensitive.switched()
    run = Taps(module, sensitivity.outputs(module))
    (exact,), (switched,) = run([*feed, 0 * ones]), run([*feed, ones])
    (wanted,) = Taps(before, sensitivity.outputs(before))(feed)
    np.testing.assert_allclose(exact, wanted, rtol=1e-3, atol=1e-4)
    (got,) = Taps(after, sensitivity.outputs(after))(feed)
    noise = np.linalg.norm(got - wanted)
    assert noise > 0
    assert np.linalg.norm(got - switched) < 0.7 * noise
    assert np.linalg.norm(switched - wanted) == pytest.approx(noise, rel=0.5)


@pytest.mark.slow
def test_the_effect_of_each_operator_is_found_on_the_output() -> None:
    _, _, context = lowered("residual")
    operators = sensitivity.measured(context.sensitive)
    assert [each.name for each in operators] == [f"conv2d-{i}" for i in range(6)] + ["matmul-0"]
    assert all(each.effect is not None and 0 < each.effect < 0.05 for each in operators)
    last = operators[-1]
    assert last.effect == pytest.approx(last.error, rel=1.0)  # nothing stands behind it


def test_correction_takes_back_what_the_mean_moves_by() -> None:
    """Weights that all round to the same side move the mean of what they multiply."""
    torch.manual_seed(0)
    model = nn.Linear(64, 4, bias=False)
    with torch.no_grad():
        model.weight[:] = 0.3 + torch.rand(4, 64) * 1e-3
        model.weight[:, 0] = 1.0
    x = torch.rand(32, 64)
    found: dict[bool, float] = {}
    data = [{"input": torch.rand(32, 64).numpy()} for _ in range(8)]
    base = frontend.load(model.eval(), example_inputs=(x,))
    calibration = activations.of_feeds(
        [{base.inputs[0].name: each["input"]} for each in data], base.inputs, "data", given=True
    )
    for correct in (True, False):
        context = Context(target.parse("cpu", 1), pipeline.rules(), None, calibration)
        before = pipeline.run(pipeline.parse(FRONT), base.module, context)
        after = pipeline.run([Quantize(alpha=0.0, correct=correct)], before, context)
        (got,) = Taps(after, sensitivity.outputs(after))([x.numpy()])
        found[correct] = float(np.abs((got - model(x).detach().numpy()).mean(0)).max())
    assert found[True] < 0.3 * found[False]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("width", "bias"), [(0.0, 0.0), (0.0, 1.0), (1e-30, 0.0), (1e-30, 1.0)])
def test_what_has_no_range_is_its_bias(width: float, bias: float) -> None:
    """A step of the product may be too small for float32."""
    torch.manual_seed(0)
    model = nn.Linear(16, 4).eval()
    with torch.no_grad():
        model.weight *= width
        model.bias.fill_(bias)
    x = np.full((3, 16), width, np.float32)
    base = frontend.load(model, example_inputs=(torch.zeros(3, 16),))
    feeds = [{base.inputs[0].name: x}] * 4
    calibration = activations.of_feeds(feeds, base.inputs, "data", given=True)
    context = Context(target.parse("cpu", 1), pipeline.rules(), None, calibration)
    before = pipeline.run(pipeline.parse(FRONT), base.module, context)
    after = pipeline.run([Quantize()], before, context)
    (got,) = Taps(after, sensitivity.outputs(after))([x])
    np.testing.assert_array_equal(got, np.full((3, 4), bias, np.float32))


def test_scales_migrate_from_outliers() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 32))
    with torch.no_grad():
        model[0].weight[:3] *= 40
        model[1].weight[:, :3] /= 40
    data = [
        {"x": np.random.default_rng(i).standard_normal((16, 64)).astype("f4")} for i in range(4)
    ]
    base = frontend.load(model.eval(), example_inputs=(torch.randn(16, 64),))
    feeds = [{base.inputs[0].name: each["x"]} for each in data]
    found: dict[float, float] = {}
    for alpha in (0.0, 0.5):
        calibration = activations.of_feeds(feeds, base.inputs, "data", given=True)
        context = Context(target.parse("cpu", 1), pipeline.rules(), None, calibration)
        before = pipeline.run(pipeline.parse(FRONT), base.module, context)
        pipeline.run([Quantize(alpha=alpha, method="minmax")], before, context)
        (operator,) = context.sensitive.operators
        found[alpha] = operator.error
    assert found[0.5] < 0.1 * found[0.0]


@pytest.mark.parametrize("count", [1, 6, 24])
def test_what_few_rows_make_look_like_outliers_stays(count: int) -> None:
    """Columns of few rows have extremes of their own by chance: factors of them fit those alone."""
    torch.manual_seed(0)
    model = nn.Linear(256, 64).eval()
    base = frontend.load(model, example_inputs=(torch.randn(1, 256),))
    draw = np.random.default_rng(0)
    feeds = [{base.inputs[0].name: draw.standard_normal((1, 256), "f4")} for _ in range(count)]
    fresh = draw.standard_normal((200, 1, 256), "f4")
    wanted = np.stack([model(torch.from_numpy(x)).detach().numpy() for x in fresh])
    found: dict[float, float] = {}
    for alpha in (0.0, 0.5):
        calibration = activations.of_feeds(feeds, base.inputs, "data", given=True)
        context = Context(target.parse("cpu", 1), pipeline.rules(), None, calibration)
        before = pipeline.run(pipeline.parse(FRONT), base.module, context)
        after = pipeline.run([Quantize(alpha=alpha, method="minmax")], before, context)
        taps = Taps(after, sensitivity.outputs(after))
        got = np.stack([taps([x])[0] for x in fresh])
        found[alpha] = float(np.square(got - wanted).mean())
    assert found[0.5] < 1.5 * found[0.0]


def test_precise_products_stay_as_they_were() -> None:
    model, data = loaded("residual")
    options = Options(threads=1, dtype="int8", calibration=data, precise=("conv2d-0", "matmul-0"))
    made = driver.compile_model(model, options)
    assert "quantize{keep=conv2d-0,matmul-0}" in made.artifact.pipeline
    assert made.artifact.certificate["precision"] == "int8"
    assert sum(kernel.precision == "int8" for kernel in made.report.kernels) == 5
    assert made.sensitive is not None
    kept = [each.name for each in made.sensitive.operators if not each.lowered]
    assert kept == ["conv2d-0", "matmul-0"]
    again = pipeline.parse(made.artifact.pipeline)
    assert precisions.of_steps(again) == "int8"


def test_int8_needs_a_pipeline_with_integer_arithmetic() -> None:
    catalogue = pipeline.passes()
    row = precisions.PRECISIONS["int8"]
    assert row == (Insertion("quantize", before="integer-arithmetic"),)
    made = precisions.lowered(pipeline.parse("default", catalogue), "int8", catalogue, ("a", "b"))
    assert Quantize(keep="a,b") in made
    assert replace(Quantize(), keep="a,b") == Quantize(keep="a,b")
