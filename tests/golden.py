"""Golden tests of passes: IR before and after, as text that is also executed.

The form of the files is told at the head of `test_passes.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from hybridc.compiler import pipeline
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir import script as ir_text
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.ir.rewrite import calls
from hybridc.compiler.model import Array, TensorSpec, random_feed
from hybridc.compiler.target import Target

FOLDER = Path(__file__).parent / "passes"
CASE, COMMAND, CONSTANTS, AFTER = (
    "# case: ",
    "# hybridc opt --pipeline ",
    "# constants: ",
    "# gives:",
)
UNCHANGED, FAILS = "# unchanged", "# fails: "

# A fixed target, so that goldens are the same on every machine.
TARGET = Target(
    "x86-64-v3", frozenset({"avx", "avx2", "f16c", "fma"}), threads=2, l1=2**15, l2=2**20, l3=2**24
)


@dataclass(frozen=True)
class Case:
    """One rewrite: the pipeline, the IR text before, the names bound to constants, the outcome."""

    title: str
    pipeline: str
    constants: Mapping[str, float | None]
    before: str
    after: str

    def text(self, after: str) -> str:
        """The case as it stands in its file, with this outcome."""
        lines = [CASE + self.title, f"{COMMAND}'{self.pipeline}'"]
        if self.constants:
            names = [n if v is None else f"{n}={v:.12g}" for n, v in self.constants.items()]
            lines.append(CONSTANTS + ", ".join(names))
        return "\n".join([*lines, self.before.strip("\n"), after]).strip("\n")


def read(path: Path) -> Iterator[Case]:
    """The cases of one file."""
    for block in path.read_text().split("\n\n" + CASE):
        title, command, rest = block.removeprefix(CASE).split("\n", 2)
        constants: dict[str, float | None] = {}
        if rest.startswith(CONSTANTS):
            line, rest = rest.split("\n", 1)
            for item in line.removeprefix(CONSTANTS).split(", "):
                name, _, value = item.partition("=")
                constants[name] = float(value) if value else None
        before, mark, after = _cut(rest)
        yield Case(title, command.removeprefix(COMMAND).strip("'"), constants, before, mark + after)


def update(path: Path, index: int, after: str) -> None:
    """Write a new outcome of one case into its file."""
    cases = list(read(path))
    texts = [case.text(after if i == index else case.after) for i, case in enumerate(cases)]
    path.write_text("\n\n".join(texts) + "\n")


def _cut(text: str) -> tuple[str, str, str]:
    """The IR before, the line that says what follows, and that."""
    for mark in (AFTER, UNCHANGED, FAILS):
        before, found, after = text.partition("\n" + mark)
        if found:
            return before, mark, after.rstrip("\n")
    return text.rstrip("\n"), "", ""


def outcome(case: Case, plugins: Sequence[Path] = ()) -> str:
    """What the pipeline makes of the case, as text; the numbers before and after are compared."""
    module, constants = parse(case)
    context = Context(TARGET, pipeline.rules())
    try:
        steps = pipeline.parse(case.pipeline, pipeline.passes(plugins))
        after = pipeline.run(steps, module, context)
    except HybridcError as error:
        return f"{FAILS}{error}"
    if after is module:
        return UNCHANGED
    relax.analysis.well_formed(after)
    assert_same_numbers(module, after)
    return f"{AFTER}\n{script(after, constants)}"


def parse(case: Case) -> tuple[Any, dict[str, Array]]:
    """The module before the pipeline, and the constants bound in it by name."""
    module = ir_text.read(case.before, case.title)
    types = {var.name: var.ty for var in module["main"].params}
    rng = np.random.default_rng(0)
    constants: dict[str, Array] = {}
    for name, fill in case.constants.items():
        shape, dtype = _extents(types[name]), str(types[name].dtype)
        # Between 0.5 and 1.5: fit to be a variance or a divisor too.
        drawn = rng.random(shape) + 0.5 if fill is None else np.full(shape, fill)
        constants[name] = drawn.astype(dtype)
    return relax.transform.BindParams("main", constants)(module), constants


def assert_same_numbers(before: Any, after: Any) -> None:
    """Run both on the same random inputs; nothing of hybridc's own lowering is used."""
    for size in (1, 7, 16) if _is_open(before) else (0,):
        _assert_same_numbers(before, after, size)


def _is_open(module: Any) -> bool:
    extents = [extent for var in module["main"].params for extent in var.ty.shape.values]
    return not all(isinstance(extent, tirx.IntImm) for extent in extents)


def _assert_same_numbers(before: Any, after: Any, size: int) -> None:
    """The same, with open sizes of `size`."""
    specs = tuple(
        TensorSpec(var.name, _extents(var.ty, size), str(var.ty.dtype))
        for var in before["main"].params
    )
    inputs = list(random_feed(specs).values())
    text = after.script()
    quantized = "uint8" in text and "int8" not in before.script()
    relative, absolute = (2e-2, 2e-2) if "float16" in text or quantized else (1e-4, 1e-5)
    if calls(after, "quantize") and not calls(before, "quantize"):
        relative, absolute = 2e-2, 5e-2  # half a step of 8 bits for each of a few operands
    for wanted, got in zip(evaluate(before, inputs), evaluate(after, inputs), strict=True):
        pair = got.astype(np.float64), wanted.astype(np.float64)
        np.testing.assert_allclose(*pair, rtol=relative, atol=absolute)
        assert got.dtype == wanted.dtype


def _extents(type_: Any, size: int = 0) -> tuple[int, ...]:
    """A shape, with open sizes of `size`."""
    return tuple(
        int(extent) if isinstance(extent, tirx.IntImm) else size for extent in type_.shape.values
    )


def script(module: Any, constants: Mapping[str, Array]) -> str:
    """The module as text in which constants stand by name, as parameters of `main`.

    A constant that the case did not bind is called `folded`, `folded_1`, …
    """
    lifted = _Lift(constants)
    function = lifted.visit_expr(module["main"])
    main = relax.Function(
        [*function.params, *lifted.params],
        function.body,
        function.ret_ty,
        function.is_pure,
        function.attrs,
    )
    functions = dict(module.functions_items()) | {module.get_global_var("main"): main}
    text = tvm.IRModule(functions).script()
    kept = [line.rstrip() for line in text.splitlines() if not line.startswith("# ")]
    return "\n".join(kept).strip()


@relax.expr_functor.mutator
class _Lift(relax.PyExprMutator):
    """Makes a parameter of each constant that is not a scalar."""

    def __init__(self, known: Mapping[str, Array]) -> None:
        super().__init__()
        self.known = known
        self.params: list[Any] = []
        self.found: list[tuple[Array, Any]] = []

    def visit_generic_const_(self, op: Any) -> Any:
        if not isinstance(op.value, tvm.runtime.Tensor) or not op.value.shape:
            return op  # a type or a scalar
        array = op.value.numpy()
        for other, var in self.found:
            if _equal(other, array):
                return var
        var = relax.Var(self._name(array), op.ty)
        self.params.append(var)
        self.found.append((array, var))
        return var

    def _name(self, array: Array) -> str:
        for name, value in self.known.items():
            if _equal(value, array):
                return name
        return "folded"


def _equal(left: Array, right: Array) -> bool:
    return left.dtype == right.dtype and np.array_equal(left, right)
