"""Plug-ins: each file in a plug-in folder is one, named after the file.

There is no table to edit: names come from the folder, so they are unique, and a module is
imported only when its plug-in is used.  Options are the fields of a frozen dataclass, written
`name{field=value other-field=value}`; `create` parses that text and `text` writes it.
"""

import dataclasses
import importlib
import importlib.util
import pkgutil
import re
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

from hybridc.compiler.errors import PluginError, described, hint

P = TypeVar("P")
_SPEC = re.compile(r"(?P<name>[a-z][a-z0-9-]*)(?:\{(?P<options>[^{}]*)\})?$")
_OPTIONS = (bool, int, float, str)
_BOOLEANS = {"true": True, "false": False}


class Plugin:
    """Base class of all kinds of plug-in that `--plugin` accepts."""


@dataclass(frozen=True)
class Catalogue(Generic[P]):
    """The plug-ins of one kind: from our folder, from entry points, and from `files`.

    `folder` is the package (`hybridc.passes`), which is also the entry-point group; `base` is the
    class that each plug-in extends; `files` are those given as `--plugin path.py`.
    """

    folder: str
    base: type[P]
    files: tuple[Path, ...] = ()

    @cached_property
    def _outside(self) -> dict[str, EntryPoint | Path]:
        """Plug-ins that are not in our folder, by name."""
        found: dict[str, EntryPoint | Path] = {}
        for entry in _entries(self.folder, tuple(sys.path)):
            self._claim(found, entry.name, entry)
        for path in self.files:
            self._claim(found, _name_of_file(path), path)
        return found

    def _claim(
        self, found: dict[str, EntryPoint | Path], name: str, owner: EntryPoint | Path
    ) -> None:
        if name in self._inside or name in found:
            other = found.get(name, f"{self.folder}.{_snake(name)}")
            raise PluginError(f"two plug-ins are named {name!r}: {other} and {owner}")
        found[name] = owner

    @cached_property
    def _inside(self) -> frozenset[str]:
        paths = tuple(importlib.import_module(self.folder).__path__)
        return _named(paths, tuple(Path(path).stat().st_mtime_ns for path in paths))

    def names(self) -> tuple[str, ...]:
        """The names of all plug-ins; none is imported."""
        return self._names

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(self._inside | self._outside.keys()))

    def load(self, name: str) -> type[P]:
        """Import one plug-in: the class that its file defines, named after the file.

        Raises PluginError if there is no file of that name, or it is not a plug-in of this kind.
        """
        if name in self._inside:
            return self._only_class(importlib.import_module(f"{self.folder}.{_snake(name)}"), name)
        match self._outside.get(name):
            case EntryPoint() as entry:
                where = f"entry point {entry.value!r} of {self.folder}"
                found = self._checked(_imported(entry, where), name, where)
            case Path() as path:
                where, found = str(path), self._only_class(_import_file(path), name)
            case _:
                kind = name_of(self.base).replace("-", " ")
                raise PluginError(f"no {kind} is named {name!r}; {hint(name, self.names())}")
        _check_options(found, where)
        return found

    def all(self) -> Iterator[tuple[str, type[P]]]:
        """All plug-ins with their names, in alphabetical order."""
        return ((name, self.load(name)) for name in self.names())

    def create(self, spec: str) -> P:
        """Build a plug-in from text such as `fuse{depth=4 aggressive=true}`."""
        if (match := _SPEC.match(spec)) is None:
            raise PluginError(f"{spec!r} is not of the form name{{option=value ...}}")
        kind = self.load(match["name"])
        return kind(**_options(kind, match["name"], match["options"] or ""))

    def _only_class(self, module: types.ModuleType, name: str) -> type[P]:
        kinds = _own_classes(module, self.base)
        where = module.__file__ or module.__name__
        if len(kinds) != 1:
            raise PluginError(
                f"{where}: a plug-in file defines one {self.base.__name__}, found {len(kinds)}"
            )
        return self._checked(kinds[0], name, where)

    def _checked(self, kind: object, name: str, where: str) -> type[P]:
        if not (isinstance(kind, type) and issubclass(kind, self.base)):
            raise PluginError(f"{where}: {kind!r} is not a {self.base.__name__}")
        if name_of(kind) != name:
            raise PluginError(
                f"{where}: the class of {name!r} must be named {_camel(name)}, not {kind.__name__}"
            )
        if "__dataclass_fields__" not in vars(kind):  # hasattr would find those of Pass
            raise PluginError(f"{where}: {kind.__name__} must be a frozen dataclass")
        if missing := sorted(getattr(kind, "__abstractmethods__", ())):
            raise PluginError(f"{where}: {kind.__name__} does not define {', '.join(missing)}")
        return kind


@cache
def _entries(group: str, _: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group; cached by the path, since all installed packages are read."""
    return tuple(entry_points(group=group))


@cache
def _named(paths: tuple[str, ...], _: tuple[int, ...]) -> frozenset[str]:
    """The names of the plug-ins in folders; cached until a file is added to one or removed."""
    stems = (module.name for module in pkgutil.iter_modules(paths) if not module.ispkg)
    return frozenset(_kebab(stem) for stem in stems if not stem.startswith("_"))


# Reading annotations takes longer than all else of making a plug-in.
_hints = cache(get_type_hints)


def catalogue(folder: str, base: type[P], files: Iterable[Path]) -> Catalogue[P]:
    """The plug-ins of one kind; of `files`, which may hold any kind, only those are taken."""
    return Catalogue(folder, base, tuple(path for path in files if defines(path, base)))


def check_file(path: Path) -> None:
    """Raise PluginError if a file, which is executed, holds no plug-in of its name."""
    if not (kinds := _own_classes(_import_file(path), Plugin)):
        raise PluginError(
            f"--plugin {path}: it defines no pass, schedule rule, strategy or backend"
        )
    name = _name_of_file(path)
    if all(name_of(kind) != name for kind in kinds):
        given = ", ".join(kind.__name__ for kind in kinds)
        raise PluginError(
            f"{path}: the class of {name!r} must be named {_camel(name)}, not {given}"
        )


def defines(path: Path, base: type) -> bool:
    """Whether a plug-in file defines a class of this kind; the file is executed to find out."""
    return bool(_own_classes(_import_file(path), base))


def _check_options(kind: type, where: str) -> None:
    """Raise PluginError where text could not give the options of a class."""
    try:
        hints = _hints(kind)
    except Exception as error:  # whatever an annotation raises
        raise PluginError(f"{where}: an option's type is not known: {described(error)}") from error
    for field in dataclasses.fields(kind):
        option = f"{where}: option {_kebab(field.name)!r} of {kind.__name__}"
        if hints[field.name] not in _OPTIONS:
            raise PluginError(f"{option} must be an int, a float, a bool or a str")
        if field.default is dataclasses.MISSING:
            raise PluginError(f"{option} has no default")


def _own_classes(module: types.ModuleType, base: type) -> list[type]:
    """The classes of this kind that a module defines; those that it imports are left out."""
    # Of all values first what is cheap to ask: each compilation asks a hundred modules.
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and issubclass(value, base)
    ]


def name_of(kind: type) -> str:
    """The plug-in name of a class: `FoldBatchNorm` is `fold-batch-norm`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", kind.__name__).lower()


def text(plugin: Any) -> str:
    """The text that builds this plug-in again; options at their default are left out."""
    shown: list[str] = []
    for field in dataclasses.fields(plugin):
        value = getattr(plugin, field.name)
        if value != field.default:
            shown.append(f"{_kebab(field.name)}={_write(value)}")
    name = name_of(type(plugin))
    return f"{name}{{{' '.join(shown)}}}" if shown else name


def options(kind: type) -> list[tuple[str, str, object]]:
    """The options of a plug-in class: name, type and default of each."""
    hints = _hints(kind)
    return [
        (_kebab(field.name), hints[field.name].__name__, field.default)
        for field in dataclasses.fields(kind)
    ]


def _options(kind: type, name: str, text: str) -> dict[str, Any]:
    hints = _hints(kind)
    fields = {_kebab(field.name): field.name for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for item in text.split():
        key, equals, value = item.partition("=")
        if key not in fields:
            raise PluginError(f"{name} has no option {key!r}; {hint(key, fields)}")
        if not equals or key in values:
            raise PluginError(f"{name}: each option is written once, as {key}=value")
        wanted = hints[fields[key]]
        try:
            values[fields[key]] = _read(wanted, value)
        except (KeyError, ValueError):
            raise PluginError(f"{name}: {key} needs {wanted.__name__}, got {value!r}") from None
    return values


def _read(kind: type, value: str) -> object:
    return _BOOLEANS[value] if kind is bool else kind(value)


def _write(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _import_file(path: Path) -> types.ModuleType:
    """Import a plug-in file: once, so that its classes stay the same, until it changes."""
    if not path.is_file():
        raise PluginError(f"--plugin {path}: {'not a file' if path.exists() else 'no such file'}")
    return _executed(path, path.stat().st_mtime_ns)


@cache
def _executed(path: Path, _: int) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"hybridc_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise PluginError(f"--plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the file's own code raises
        raise PluginError(f"--plugin {path}: {described(error)}") from error
    return module


def _imported(entry: EntryPoint, where: str) -> object:
    """What an entry point names.  Raises PluginError where a package is broken."""
    try:
        return entry.load()
    except (Exception, SystemExit) as error:  # whatever the package's own code raises
        raise PluginError(f"{where} cannot be imported: {described(error)}") from error


def _name_of_file(path: Path) -> str:
    """The name of the plug-in in a file."""
    name = _kebab(path.stem)
    if _SPEC.match(name) is None or "{" in name:
        raise PluginError(
            f"--plugin {path}: the file's name is the plug-in's, and is written in lower case, as"
            " fold_padding.py"
        )
    return name


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _snake(name: str) -> str:
    return name.replace("-", "_")


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))
