"""Torch models come in by either road and agree with eager; nothing in a file is unpickled."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx_models import check
from torch_models import IMAGE, network

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError, ModelError
from hybridc.compiler.frontend import load
from hybridc.compiler.frontends import torch_model
from hybridc.compiler.runtime.session import InferenceSession

torch = pytest.importorskip("torch")


def test_module_by_way_of_onnx() -> None:
    model = load(network(), example_inputs=(torch.zeros(IMAGE),))
    assert model.notes[0] == "imported from torch by way of ONNX"
    assert model.name == "Sequential"
    assert [spec.describe() for spec in model.inputs] == ["input float32[1,3,8,8]"]
    assert len(model.module["main"].params) == 1
    check(model)


def test_the_reference_is_eager() -> None:
    module = network().eval()
    model = load(module, example_inputs=(torch.zeros(IMAGE),))
    x = np.random.default_rng(0).standard_normal(IMAGE).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(model.reference({"input": x})[0], expected)


def test_the_module_stays_in_its_mode() -> None:
    """Dropout is off in what is imported and in its reference, on again afterwards."""
    module = network().train()
    module[1].eval()
    model = load(module, example_inputs=(torch.zeros(IMAGE),))
    check(model)
    assert module.training
    assert module[3].training
    assert not module[1].training


class Recurrent(torch.nn.Module):
    """An LSTM, which comes in by either road."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.lstm(x)[0]


def test_the_other_road_is_taken_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise ModelError("operator 'LSTM' is not supported")

    torch.manual_seed(0)
    check(load(Recurrent(), example_inputs=(torch.zeros(2, 3, 4),)))
    monkeypatch.setattr(torch_model, "_through_onnx", refuse)
    model = load(Recurrent(), example_inputs=(torch.zeros(2, 3, 4),))
    assert model.notes[0].startswith("failed by way of ONNX: operator 'LSTM'")
    assert model.notes[1] == "imported from torch by way of torch.export"
    assert len(model.module["main"].params) == 1
    check(model)


class Structured(torch.nn.Module):
    """Nested arguments, one of them no tensor; several outputs."""

    def forward(self, pair: Any, scale: float, names: Any) -> Any:
        first, second = pair
        return {"sum": first + second * scale, "rest": [names["x"] > 0, None, 7, "text"]}


def test_nested_arguments_and_outputs() -> None:
    arguments = ((torch.zeros(2), torch.zeros(2)), 3.0, {"x": torch.zeros(3)})
    model = load(Structured(), example_inputs=arguments)
    assert [spec.shape for spec in model.inputs] == [(2,), (2,), (3,)]
    assert [(spec.name, spec.dtype) for spec in model.outputs] == [
        ("output_0", "float32"),
        ("output_1", "bool"),
    ]
    check(model)


class Counting(torch.nn.Module):
    """Changes a buffer at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.calls += 1
        return x + self.calls


class Unsupported(torch.nn.Module):
    """Has an operator that neither road knows."""

    def forward(self, x: Any) -> Any:
        return torch.linalg.eigvals(x)


class Complex(torch.nn.Module):
    """Takes and gives complex numbers."""

    def forward(self, x: Any, y: Any) -> Any:
        return x * y, y.conj()


class AntiAliased(torch.nn.Module):
    """TVM's importer leaves the anti-aliasing out."""

    def forward(self, x: Any) -> Any:
        return torch.ops.aten._upsample_bilinear2d_aa(x.view(1, 1, 2, 2), [1, 1], False)


class Branching(torch.nn.Module):
    """Cannot be traced."""

    def forward(self, x: Any) -> Any:
        return x if x.sum().item() > 0 else -x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Counting(), r"changes its own state or inputs, which is not supported: \['b_calls'\]"),
        (Unsupported(), "cannot be imported; by way of ONNX: .*; by way of torch.export: "),
        (Branching(), "torch.export cannot trace the module"),
    ],
)
def test_modules_that_are_refused(module: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"^[^\n]*{message}[^\n]*$"):
        load(module, example_inputs=(torch.zeros(2, 2),))


@pytest.mark.parametrize("road", torch_model.ROADS)
def test_complex_numbers_are_pairs(road: str) -> None:
    x, y = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.complex64)
    model = torch_model.load(Complex(), (x, y), [road])
    assert [spec.describe() for spec in model.inputs] == ["x float32[2,3]", "y float32[2,3,2]"]
    assert {spec.describe()[8:] for spec in model.outputs} == {" float32[2,3,2]"}
    check(model)


class Nonzero(torch.nn.Module):
    """Has a result whose size depends on the data, and one that does not."""

    def forward(self, x: Any) -> Any:
        return torch.nonzero(x), x + 1


def test_what_no_road_has_is_left_to_onnx_runtime() -> None:
    x = torch.tensor([0.0, 1.0, 2.0])
    model = load(Nonzero(), example_inputs=(x,), fallback=True)
    assert model.road == "ONNX with ONNX Runtime"
    assert model.notes[-1].startswith("regions: 1 handed to ONNX Runtime"), model.notes
    assert "imported from torch by way of ONNX with ONNX Runtime" in model.notes
    with pytest.raises(ModelError, match="cannot be imported; by way of ONNX: the shape of output"):
        load(Nonzero(), example_inputs=(x,))


def test_missing_and_needless_options() -> None:
    with pytest.raises(InputError, match="needs example_inputs, a tuple"):
        load(network())
    with pytest.raises(InputError, match="shapes is not used with a torch model"):
        load(network(), example_inputs=(torch.zeros(IMAGE),), shapes={"x": (1,)})
    program = torch.export.export(network().eval(), (torch.zeros(IMAGE),))
    with pytest.raises(InputError, match=r"example_inputs are used with a torch.nn.Module alone"):
        load(program, example_inputs=(torch.zeros(IMAGE),))


def bert() -> tuple[Any, tuple[Any, ...]]:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    )
    ids = torch.randint(0, 99, (1, 12))
    return BertModel(config), (ids, torch.ones_like(ids))


def vit() -> tuple[Any, tuple[Any, ...]]:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    return ViTModel(config), (torch.zeros(1, 3, 32, 32),)


@pytest.mark.parametrize("make", [bert, vit])
def test_transformers(make: Callable[[], tuple[Any, tuple[Any, ...]]]) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    module, example_inputs = make()
    model = load(module, example_inputs=example_inputs)
    assert model.notes[0] == "imported from torch by way of ONNX"
    check(model)


class Extremes(torch.nn.Module):
    """Over all axes, which are not written out, and over one."""

    def forward(self, x: Any) -> Any:
        return torch.amax(x), torch.amin(x, keepdim=True), torch.amax(x, 1)


def test_extremes_over_all_axes() -> None:
    program = torch.export.export(Extremes(), (torch.zeros(2, 3),))
    text = program.graph_module.code
    model = load(program)
    assert model.notes[0] == "imported from torch by way of ONNX"
    assert program.graph_module.code == text, "the program given stays as it is"
    check(model)


def test_what_one_road_misreads_comes_by_the_other() -> None:
    module, inputs = AntiAliased(), (torch.zeros(2, 2),)
    check(load(module, example_inputs=inputs))
    with pytest.raises(ModelError, match="is misread: its anti-aliasing is left out"):
        torch_model.load(module, inputs, ["torch.export"])


def test_constants_near_0_and_1_are_not_taken_for_them() -> None:
    class Near(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x + 1e-9, x - 1e-9, x * (1 + 1e-6), x / (1 + 1e-6), x + 0, x * 1

    x = torch.tensor([1e-9, 0.0, -3e-9, 1.0, 3.0])
    outcome = driver.compile_source(Near(), Options(verify="off"), example_inputs=(x,))
    feed = {outcome.artifact.inputs[0].name: x.numpy()}
    outputs = InferenceSession(outcome.artifact).run(None, feed)
    for got, wanted in zip(outputs, Near()(x), strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), 2e-7, 0)


def answers(function: Callable[..., Any], *given: Any) -> tuple[list[Any], tuple[str, ...]]:
    """What the compiled function gives, and the notes on its way in."""

    class Function(torch.nn.Module):
        def forward(self, *operands: Any) -> Any:
            return function(*operands)

    outcome = driver.compile_source(Function(), Options(verify="off"), example_inputs=given)
    names = [spec.name for spec in outcome.artifact.inputs]
    feed = dict(zip(names, (each.numpy() for each in given), strict=True))
    return InferenceSession(outcome.artifact).run(None, feed), outcome.report.notes


def test_what_the_exporter_writes_wrongly() -> None:
    x, index, source = torch.randn(4, 3), torch.tensor([1, 1, 3]), torch.randn(3, 3)
    (got,), _ = answers(
        lambda *given: given[0].index_reduce(0, *given[1:], "mean"), x, index, source
    )
    np.testing.assert_allclose(got, x.index_reduce(0, index, source, "mean").numpy(), 1e-5)
    options = {"ceil_mode": True, "count_include_pad": False, "divisor_override": 3}
    (got,), _ = answers(lambda x: torch.nn.functional.avg_pool2d(x, 2, 1, 1, **options), x[None])
    wanted = torch.nn.functional.avg_pool2d(x[None], 2, 1, 1, **options)
    np.testing.assert_allclose(got, wanted.numpy(), 1e-5, 1e-6)


def test_elements_are_chosen_by_a_mask() -> None:
    x, mask = torch.randn(2, 3), torch.tensor([[True], [False]])
    (got,), _ = answers(torch.masked_select, x, mask)
    np.testing.assert_array_equal(got, x.masked_select(mask).numpy())
