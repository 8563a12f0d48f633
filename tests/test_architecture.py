"""The shape of the code base, as tests; ARCHITECTURE.md names the one that holds each invariant."""

import ast
import dataclasses
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import golden
import pytest

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.interfaces import ScheduleRule
from hybridc.compiler.orchestration import controller
from hybridc.compiler.pipelines import PIPELINES

Node = TypeVar("Node", bound=ast.AST)
ROOT = Path(__file__).parent.parent
FOLDERS = ("compiler", "passes", "schedules", "autotune", "cli")
PACKAGED = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
PACKAGED.append(ROOT / "hybridc" / "__init__.py")
BESIDE = [
    path for name in ("tests", "benchmarks", "examples") for path in (ROOT / name).rglob("*.py")
]
PLUG_INS = ("passes", "schedules", "autotune", "cli", "control")
PASSES = pipeline.passes().names()
RULES = plugin.Catalogue("hybridc.schedules", ScheduleRule).names()


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def require_none(faults: Callable[[Path], Iterable[str]], paths: Iterable[Path]) -> None:
    """Fail with all that is wrong with any of the files."""
    found = [f"{name_of(path)}: {fault}" for path in paths for fault in faults(path)]
    assert not found, "\n".join(found)


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


@pytest.fixture(autouse=True, scope="module")
def _nothing_stays() -> Iterator[None]:
    """A million nodes would slow every collection of garbage down from now on."""
    yield
    nodes.cache_clear()


def nodes_of(path: Path, *kinds: type[Node]) -> Iterator[Node]:
    return (node for node in nodes(path) if isinstance(node, kinds))


@cache
def imported(path: Path) -> frozenset[str]:
    """Dotted names of ours that a file imports; what is imported from a module counts too."""
    whole = [alias.name for node in nodes_of(path, ast.Import) for alias in node.names]
    parts = [
        f"{node.module}.{alias.name}"
        for node in nodes_of(path, ast.ImportFrom)
        for alias in node.names
    ]
    return frozenset(name for name in (*whole, *parts) if name.startswith("hybridc."))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("hybridc", *parts)).removesuffix(".__init__").removeprefix("hybridc.hybridc")


def test_every_import_points_at_the_core() -> None:
    def faults(path: Path) -> Iterable[str]:
        folder = path.relative_to(ROOT).parts[0]
        allowed = {"compiler"} if folder == "hybridc" else {"compiler", folder}
        return (name for name in imported(path) if name.split(".")[1] not in allowed)

    require_none(faults, PACKAGED)


def test_plug_ins_do_not_import_each_other() -> None:
    def faults(path: Path) -> Iterable[str]:
        folder = f"{module_of(path).rpartition('.')[0]}."
        own = (name.removeprefix(folder) for name in imported(path) if name.startswith(folder))
        packages = {init.parent.name for init in path.parent.glob("*/__init__.py")}
        return (name for name in own if name[0] != "_" and name.split(".")[0] not in packages)

    require_none(faults, [path for path in PACKAGED if path.parent.name in PLUG_INS])


def test_no_imports_run_in_a_circle() -> None:
    modules = {module_of(path): path for path in PACKAGED}
    graph = {module: _read_by(path) & modules.keys() - {module} for module, path in modules.items()}
    while leaves := {module for module, others in graph.items() if not others}:
        graph = {m: others - leaves for m, others in graph.items() if m not in leaves}
    assert graph == {}


def _read_by(path: Path) -> set[str]:
    """What a file imports, as modules and as names in modules; a package is not its parts."""
    return {*imported(path), *(name.rpartition(".")[0] for name in imported(path))}


def test_no_import_is_relative() -> None:
    def faults(path: Path) -> Iterable[str]:
        return (str(node.lineno) for node in nodes_of(path, ast.ImportFrom) if node.level)

    require_none(faults, PACKAGED + BESIDE)


def test_files_stay_small() -> None:
    def faults(path: Path) -> Iterable[str]:
        lines = path.read_text().count("\n")
        return [f"{lines} lines"] if lines > 300 else []

    require_none(faults, PACKAGED + BESIDE)


def test_functions_stay_small() -> None:
    def faults(path: Path) -> Iterable[str]:
        for node in nodes_of(path, ast.FunctionDef, ast.AsyncFunctionDef):
            if (node.end_lineno or 0) - node.lineno >= 50:
                yield node.name

    require_none(faults, PACKAGED + BESIDE)


def test_the_environment_is_read_in_settings_alone() -> None:
    def faults(path: Path) -> Iterable[str]:
        for node in nodes_of(path, ast.Attribute):
            name = node.value.id if isinstance(node.value, ast.Name) else ""
            if f"{name}.{node.attr}" in ("os.environ", "os.getenv", "os.putenv"):
                yield str(node.lineno)

    require_none(faults, [path for path in PACKAGED if path.name != "settings.py"])


def test_no_error_is_swallowed() -> None:
    def faults(path: Path) -> Iterable[str]:
        for node in nodes_of(path, ast.ExceptHandler):
            silent = all(isinstance(statement, ast.Pass) for statement in node.body)
            if node.type is None or silent:
                yield f"line {node.lineno}"

    require_none(faults, PACKAGED)


def test_nothing_is_unpickled() -> None:
    def faults(path: Path) -> Iterable[str]:
        names = {alias.name for node in nodes_of(path, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in nodes_of(path, ast.ImportFrom)}
        return {"pickle", "cloudpickle", "dill", "shelve", "marshal"} & names

    require_none(faults, PACKAGED)


@pytest.mark.parametrize(
    ("catalogue", "name"),
    [(pipeline.passes(), name) for name in PASSES]
    + [(plugin.Catalogue("hybridc.schedules", ScheduleRule), name) for name in RULES]
    + [(controller.catalogue(), name) for name in controller.catalogue().names()],
)
def test_every_plug_in_is_a_frozen_dataclass_with_help(
    catalogue: plugin.Catalogue[Any], name: str
) -> None:
    kind = catalogue.load(name)  # refuses a class that is not named after its file
    assert plugin.name_of(kind) == name
    assert vars(kind)["__dataclass_params__"].frozen
    first = (vars(kind)["__doc__"] or "").split("\n")[0]
    assert first.endswith("."), first
    assert not first.startswith(f"{kind.__name__}("), "the docstring that dataclass makes up"


@pytest.mark.parametrize("name", PASSES)
def test_the_text_of_every_pass_builds_it_again(name: str) -> None:
    catalogue = pipeline.passes()
    made = catalogue.create(name)
    changed = {field.name: _another(field.default) for field in dataclasses.fields(made)}
    for each_one in (made, dataclasses.replace(made, **changed)):
        assert catalogue.create(plugin.text(each_one)) == each_one


def _another(value: object) -> object:
    """A value of the same type that is not this one."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case _:
            return f"{value}x"


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_has_golden_cases(name: str) -> None:
    path = golden.FOLDER / f"{name.replace('-', '_')}.txt"
    assert path.exists(), f"write {name_of(path)}"
    assert all(name in case.pipeline for case in golden.read(path))


@pytest.mark.parametrize("path", sorted(golden.FOLDER.glob("*.txt")), ids=name_of)
def test_every_golden_file_belongs_to_a_pass(path: Path) -> None:
    assert path.stem.replace("_", "-") in PASSES


@pytest.mark.parametrize("name", PIPELINES)
def test_every_entry_of_a_pipeline_exists_and_has_its_reason(name: str) -> None:
    for spec, reason in PIPELINES[name]:
        pipeline.passes().create(spec)
        assert len(reason.split()) >= 4, spec


def test_no_two_rules_share_a_priority() -> None:
    priorities = [type(rule).priority for rule in pipeline.rules()]
    assert len(set(priorities)) == len(priorities)


def test_every_package_on_disk_is_packaged() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk = {module_of(path) or "hybridc" for path in PACKAGED if path.name == "__init__.py"}
    assert on_disk == set(config["packages"]) == set(config["package-dir"])


def test_every_invariant_of_the_architecture_names_its_test() -> None:
    section = (ROOT / "ARCHITECTURE.md").read_text().partition("## Invariants\n")[2]
    invariants = re.findall(r"^\* .*?(?=^\* |\Z)", section, re.MULTILINE | re.DOTALL)
    assert invariants
    for invariant in invariants:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", invariant)
        assert named, f"no test named: {invariant}"
        for file, function in named:
            assert f"def {function}(" in (ROOT / "tests" / file).read_text(), function
