"""Golden tests of the passes: `tests/passes/fold_padding.txt` holds the cases of `fold-padding`.

A file is a list of cases, parted by a blank line before each `# case:`

    # case: what this case shows
    # hybridc opt --pipeline 'fold-padding'
    # constants: w, zero=0
    <IR before, as TVMScript>
    # gives:
    <IR after>

* Parameters named after `# constants:` are bound to constants before the pipeline runs: random
  numbers between 0.5 and 1.5, or the number behind `=` everywhere.  In the IR after, constants
  stand as parameters again, by name; those that a pass made are called `folded`.
* `# unchanged` in place of `# gives:` says that the pass returns the very module it was given;
  every pass has such a case.  `# fails: message` says that it raises this error.
* To add a case write all but the outcome and run `pytest tests/test_passes.py --update-golden`;
  then read the difference.  The IR before and after is also executed on random inputs, and must
  give the same numbers, so that an update cannot bless a wrong rewrite.
* A pass in a file of its own, `my_pass.py`, has its cases beside it in `my_pass.txt`, and
  `pytest tests/test_passes.py --plugin my_pass.py` runs them.
"""

from pathlib import Path

import golden
import plugged
import pytest

from hybridc.compiler import pipeline
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.rewrite import bindings_of

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples/plugins").glob("*.txt"))
NAMES = plugged.under_test(pipeline.passes(plugged.FILES).names())
OWN = {path.stem.replace("_", "-"): path.with_suffix(".txt") for path in plugged.FILES}
FILES = [OWN.get(name, golden.FOLDER / f"{name.replace('-', '_')}.txt") for name in NAMES]
CASES = [
    pytest.param(path, index, id=f"{path.stem}-{case.title.replace(' ', '-')}")
    for path in (*filter(Path.exists, FILES), *([] if plugged.FILES else EXAMPLES))
    for index, case in enumerate(golden.read(path))
]


@pytest.mark.parametrize(("path", "index"), CASES)
def test_golden(path: Path, index: int, request: pytest.FixtureRequest) -> None:
    case = list(golden.read(path))[index]
    beside = path.with_suffix(".py")
    got = golden.outcome(case, [beside] if beside.exists() else [])
    if request.config.getoption("--update-golden"):
        golden.update(path, index, got)
    else:
        assert got == case.after


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_pass_has_a_case_that_changes_nothing(path: Path) -> None:
    assert path.exists(), f"write {path}"
    assert any(case.after == golden.UNCHANGED for case in golden.read(path))


def test_equal_constants_become_one_object() -> None:
    """The text of a golden names equal constants alike, so it cannot show this."""
    path = golden.FOLDER / "eliminate_common_subexpressions.txt"
    case = next(case for case in golden.read(path) if case.title == "equal constants are kept once")
    module, _ = golden.parse(case)
    steps = pipeline.parse(case.pipeline)
    after = pipeline.run(steps, module, Context(golden.TARGET))
    first, second = (binding.value.args[1] for binding in list(bindings_of(after["main"]))[:2])
    assert first.same_as(second)


def test_the_guide_holds_the_example_pass() -> None:
    """`docs/new-pass.md` shows examples/plugins/merge_clips.py, whose cases ran above."""
    example = (ROOT / "examples/plugins/merge_clips.py").read_text()
    guide = (ROOT / "docs/new-pass.md").read_text()
    assert f"```python\n{example}```" in guide
    assert example.count("\n") <= 40


def test_the_guide_shows_a_golden_case_as_it_stands() -> None:
    guide = (ROOT / "docs/new-pass.md").read_text()
    cases = list(golden.read(ROOT / "examples/plugins/merge_clips.txt"))
    assert cases[0].text(cases[0].after) in guide
