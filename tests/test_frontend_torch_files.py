"""`.pt2` files and exported programs: nothing in a file is unpickled or run."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx_models import check
from torch_models import IMAGE, network
from zoo_modules import Function

from hybridc.compiler.dims import Dim
from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontend import load

torch = pytest.importorskip("torch")


def export() -> Any:
    return torch.export.export(network().eval(), (torch.zeros(IMAGE),))


def saved(tmp_path: Path, program: Any) -> Path:
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    return path


def test_exported_program() -> None:
    check(load(export()))


def test_file(tmp_path: Path) -> None:
    model = load(saved(tmp_path, export()))
    assert model.name == "model"
    check(model)


def test_programs_keep_their_open_sizes_and_files_may_have_none(tmp_path: Path) -> None:
    many = (torch.zeros(4, *IMAGE[1:]),)
    sizes = ({0: torch.export.Dim("n", max=16)},)
    program = torch.export.export(network().eval(), many, dynamic_shapes=sizes)
    size = load(program).inputs[0].shape[0]
    assert isinstance(size, Dim)
    assert size.high == 16
    with pytest.raises(ModelError, match=r"it has dynamic sizes; .* give the ExportedProgram"):
        load(saved(tmp_path, program))


def test_a_size_that_torch_found_to_be_one_number_is_that_number() -> None:
    class Steps(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return sum(torch.relu(step) for step in x.unbind(1))

    auto = torch.export.Dim.AUTO
    program = torch.export.export(
        Steps(), (torch.zeros(2, 5, 3),), dynamic_shapes=({0: auto, 1: auto},)
    )
    (spec,) = load(program).inputs
    assert isinstance(spec.shape[0], Dim)
    assert spec.shape[1:] == (5, 3)


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def pickled(trace: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Bomb(trace), buffer)
    return buffer.getvalue()


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Change the members of an archive; names are given without their top folder."""
    with zipfile.ZipFile(path) as archive:
        top = archive.namelist()[0].partition("/")[0]
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{top}/{name}", content)


def test_a_rewritten_archive_is_still_read(tmp_path: Path) -> None:
    """Else the refusals below would prove nothing."""
    path = saved(tmp_path, export())
    rewrite(path, lambda members: None)
    check(load(path))


@pytest.mark.parametrize(
    "name",
    [
        "data/weights/model.pt",
        "data/constants/model.pt",
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "data/aotinductor/model/model.so",
        "models/other.json",
    ],
)
def test_members_that_would_be_unpickled_or_run(tmp_path: Path, name: str) -> None:
    path, trace = saved(tmp_path, export()), tmp_path / "trace"
    rewrite(path, lambda members: members.update({name: pickled(trace)}))
    with pytest.raises(ModelError, match=f"refused, as '{name}' would be unpickled or run as code"):
        load(path)
    assert not trace.exists()


def test_sample_inputs_that_would_be_unpickled(tmp_path: Path) -> None:
    path, trace = saved(tmp_path, export()), tmp_path / "trace"
    rewrite(path, lambda members: members.update({"data/sample_inputs/model.pt": pickled(trace)}))
    with pytest.raises(ModelError, match="its sample inputs are more than tensors"):
        load(path)
    assert not trace.exists()


def test_weights_that_would_be_unpickled(tmp_path: Path) -> None:
    path, trace = saved(tmp_path, export()), tmp_path / "trace"

    def change(members: dict[str, bytes]) -> None:
        config = json.loads(members["data/weights/model_weights_config.json"])
        config["config"]["0.weight"]["use_pickle"] = True
        members["data/weights/model_weights_config.json"] = json.dumps(config).encode()
        members["data/weights/weight_0"] = pickled(trace)

    rewrite(path, change)
    with pytest.raises(ModelError, match=r"refused, as '0.weight' would be unpickled"):
        load(path)
    assert not trace.exists()


def program_change(old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        text = members["models/model.json"].decode()
        assert old in text
        members["models/model.json"] = text.replace(old, new).encode()

    return change


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"conv2d"', "\"c = __import__('os')\"", "is not a plain name"),
        ("torch.ops.aten.relu.default", "torch.hub.load", "operator 'torch.hub.load' is not"),
        ("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default", "is not supported"),
        ('"guards_code": []', '"guards_code": ["print(1)"]', "guards written in Python"),
        (r"\"builtins.tuple\"", r"\"some.module.Type\"", "of type some.module.Type are not"),
        ('{"as_int": 3}', '{"as_expr": {"expr_str": "exec(chr(49))"}}', "dynamic sizes"),
    ],
)
def test_programs_that_would_run_code(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = saved(tmp_path, export())
    rewrite(path, program_change(old, new))
    with pytest.raises(ModelError, match=message):
        load(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = saved(tmp_path, export())
    whole = path.read_bytes()
    for content in (b"", b"garbage", whole[:100], whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"^[^\n]*model.pt2: not a usable .pt2 file: [^\n]*$"):
            load(path)


def writes_to_a_part(x: Any, y: Any) -> Any:
    x.chunk(2)[1].add_(1)
    return x + y


def writes_a_result(x: Any, y: Any) -> Any:
    torch.add(x, 1, out=y)
    return x + y


def writes_to_several(x: Any, y: Any) -> Any:
    torch._foreach_add_([x.t()], [y.t()])
    return x.sum()


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("function", [writes_to_a_part, writes_a_result, writes_to_several])
def test_programs_that_write_to_their_inputs(function: Any, functional: bool) -> None:
    program = torch.export.export(Function(function), (torch.zeros(2, 2), torch.zeros(2, 2)))
    if functional:
        program = program.run_decompositions({})
    with pytest.raises(ModelError, match=r"changes its own state or inputs.*: \['inputs_\d'\]"):
        load(program)
