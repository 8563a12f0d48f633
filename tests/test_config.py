"""`HybridConfig`: one model for the command line, files and Python."""

from pathlib import Path
from typing import Any

import click
import pytest

import hybridc
from hybridc.cli._sections import COMPILE, Sectioned
from hybridc.cli.compile import command
from hybridc.compiler.configuration import config_page, presets
from hybridc.compiler.configuration.config import HybridConfig, names
from hybridc.compiler.configuration.descriptions import DESCRIPTIONS
from hybridc.compiler.errors import InputError
from hybridc.compiler.orchestration.modes import MODES
from hybridc.compiler.orchestration.steering import LEVELS
from hybridc.compiler.pipelines import PIPELINES

DOCS = Path(__file__).parent.parent / "docs"
# What only a command line has: where to write, what to print, and the shapes of the one model.
ALONE = {
    *("model", "output", "shape", "untrusted", "keep_best", "dump_ir", "report"),
    *("as_json", "verbose"),
}
# Options of branches that measure while compiling, which have pages of their own.
PARAMETERS = {each.name: each for each in command.params if each.name != "config"}


def test_the_page_is_the_models() -> None:
    assert (DOCS / "configuration.md").read_text() == config_page.page()


def test_the_command_line_has_each_option_and_its_default() -> None:
    assert set(names()) == set(PARAMETERS) - ALONE == set(DESCRIPTIONS)
    for name, field in HybridConfig.model_fields.items():
        option = PARAMETERS[field.alias or name]
        assert isinstance(option, click.Option)
        assert option.help == DESCRIPTIONS[field.alias or name]
        default = option.to_info_dict()["default"]
        match field.default:
            case tuple() if field.default and default:
                assert default == ",".join(field.default)
            case () | {}:
                assert not default, name
            case value:
                assert default == value, name


def test_each_option_stands_in_one_section_of_the_help() -> None:
    assert isinstance(command, Sectioned)
    context = click.Context(command)
    options = [str(each.name) for each in command.params if each.name != "model"]
    assert sorted(name for names in COMPILE.values() for name in names) == sorted(options)
    told = command.get_help(context)
    places = [told.index(f"\n{title}:\n") for title in COMPILE]
    assert places == sorted(places)
    assert told.index("--help") > places[-1]
    lines = [line.replace(",", " ").split() for line in told.splitlines() if line[:3] == "  -"]
    shown = [word for words in lines for word in words[:2]]
    assert all(shown.count(each.opts[0]) == 1 for each in command.params if each.name != "model")


def test_choices_are_the_same_everywhere() -> None:
    for name, known in (("mode", MODES), ("tier", tuple(presets.TIERS))):
        option = PARAMETERS[name]
        assert isinstance(option.type, click.Choice)
        assert tuple(option.type.choices) == known
        assert all(HybridConfig(**{name: each}) for each in known)
    assert HybridConfig().levels == LEVELS


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stratgy": "x"}, "no option is named 'stratgy'; did you mean 'strategy'?"),
        ({"depth": 4}, "depth: "),
        ({"threads": "many"}, "threads: "),
        ({"weights": {"neural": -1}}, "the weight of neural must be 0 or more"),
        ({"weights": {"neural": float("nan")}}, "0 or more"),
        ({"levels": ["graf"]}, "levels.0: "),
        ({"threshold": 1.0}, "threshold: "),
        ({"strict": "perhaps", "depth": 0}, "; "),
    ],
)
def test_what_is_wrong_is_told_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as raised:
        HybridConfig(**given)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_toml_and_yaml_say_the_same(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    toml, yaml = tmp_path / "a.toml", tmp_path / "a.yaml"
    toml.write_text(
        'strategy = "fusion"\ncomponents = ["neural"]\nvalidate = "a.b:c"\n'
        "[weights]\nneural = 0.5\n"
    )
    yaml.write_text(
        "strategy: fusion\ncomponents: [neural]\nvalidate: a.b:c\nweights: {neural: 0.5}\n"
    )
    assert HybridConfig.read(toml) == HybridConfig.read(yaml)
    assert HybridConfig.read(toml).given()["validate"] == "a.b:c"
    yaml.write_text("max_latency: 5ms\nseed: 1\nmax_latency: 6ms\n")
    with pytest.raises(InputError, match="given twice: max_latency"):
        HybridConfig.read(yaml)
    yaml.write_text("min_accuracy: {cosine: 0.9, cosine: 0.8}\n")
    with pytest.raises(InputError, match="given twice: cosine"):
        HybridConfig.read(yaml)
    yaml.write_text("strategy: !!python/object/apply:os.system [true]")
    with pytest.raises(InputError, match="not valid YAML"):
        HybridConfig.read(yaml)


def test_files_that_mean_harm_are_refused_in_one_line(tmp_path: Path) -> None:
    toml, endless = tmp_path / "deep.toml", tmp_path / "endless.toml"
    toml.write_text("seed = " + "[" * 10**5)
    with pytest.raises(InputError, match=r"^[^\n]*deep.toml: not valid TOML: [^\n]*$"):
        HybridConfig.read(toml)
    endless.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="too large for a configuration"):
        HybridConfig.read(endless)


def test_yaml_that_grows_without_bounds_is_refused(tmp_path: Path) -> None:
    """Each mapping stands in the next one twice: 2^60 of them, of which 60 are written."""
    pytest.importorskip("yaml")
    path = tmp_path / "bomb.yaml"
    lines = (f"m{i}: &m{i} {{a: *m{i - 1}, b: *m{i - 1}}}" for i in range(1, 60))
    path.write_text("\n".join(["m0: &m0 {a: 1}", *lines]))
    with pytest.raises(InputError, match="no option is named 'm0'"):
        HybridConfig.read(path)


def test_the_command_line_goes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []

    def kept(config: HybridConfig, *_: object, **__: object) -> None:
        found.append(config)
        raise InputError("enough")

    monkeypatch.setattr(presets, "options", kept)
    (tmp_path / "a.onnx").write_bytes(b"")
    path = tmp_path / "a.toml"
    path.write_text(
        'strategy = "fusion"\ndepth = 3\norder = ["bf16", "tuned"]\nstrict = true\nresume = false\n'
        "[min_accuracy]\ncosine = 0.999\n[weights]\nneural = 0.25\n"
    )
    with pytest.raises(InputError, match="enough"):
        command.main(
            [
                str(path.with_suffix(".onnx")),
                "--config",
                str(path),
                "--depth",
                "1",
                "--strategy",
                "parallel",
            ],
            standalone_mode=False,
        )
    (config,) = found
    assert (config.strategy, config.depth) == ("parallel", 1)
    assert (config.order, config.strict, config.resume) == (("bf16", "tuned"), True, False)
    assert (config.min_accuracy, config.weights) == ({"cosine": 0.999}, {"neural": 0.25})


def test_levels_and_tiers_are_presets_that_the_user_goes_before() -> None:
    def options(**given: Any) -> Any:
        return presets.options(HybridConfig(**given))

    assert options().tuning is None
    assert options(level=0).pipeline == "minimal"
    assert options(level=1).exact
    assert options(level=3).tuning.trials == presets.TRIALS
    assert options(tier="conservative").steering.components == ()
    assert options(tier="conservative").tuning is None
    trials = [options(tier=tier).tuning.trials for tier in ("balanced", "aggressive", "insane")]
    budgets = [options(tier=tier).steering.budget for tier in presets.TIERS]
    assert trials == sorted(set(trials))
    assert budgets == sorted(set(budgets))
    assert options(tier="insane", trials=3, budget="1min").tuning.trials == 3
    assert options(tier="insane", budget="1min").steering.budget == 60
    assert options(mode="neural").tuning.trials == 2 * presets.TRIALS
    assert options(mode="quantum").tuning.trials == presets.TRIALS // 2
    assert options(mode="neural", trials=5).tuning.trials == 5
    assert options(components=["precision"], mode="balanced").tuning is None
    assert options(components=["neural"]).tuning is not None
    with pytest.raises(InputError, match="neural is not among"):
        options(components=["precision"], trials=3)
    assert set(PIPELINES) >= {"default", "minimal"}


def test_python_takes_a_configuration_and_arguments_go_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from hybridc.compiler import driver

    found: list[Any] = []

    def kept(_: object, options: Any, *__: object) -> None:
        found.append(options)
        raise InputError("enough")

    monkeypatch.setattr(driver, "compile_source", kept)
    config = hybridc.HybridConfig(strategy="fusion", seed=3, max_latency="5ms")
    with pytest.raises(InputError, match="enough"):
        hybridc.compile("model.onnx", config=config, seed=4)
    assert (found[0].steering.strategy, found[0].seed) == ("fusion", 4)
    assert found[0].contract.max_latency == 0.005


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tier": "agressive"}, "tier: got 'agressive'; did you mean 'aggressive'?"),
        ({"levels": ["grph"]}, "levels.0: got 'grph'; did you mean 'graph'?"),
        (
            {"max_latency": 5},
            'max_latency: must be text, with its unit if it has one: "5ms", got 5',
        ),
        ({"threads": True}, "threads: must not be true or false, got True"),
        (
            {"min_accuracy": {"cosine": True}},
            "min_accuracy: must not be true or false, got {'cosine': True}",
        ),
        ({"threads": "two"}, "threads: must be a whole number, got 'two'"),
        ({"order": "bf16"}, "order: must be a list, got 'bf16'"),
        ({"min_accuracy": 0.9}, "min_accuracy: must be a table of names and numbers, got 0.9"),
        ({"exact": "perhaps"}, "exact: must be true or false, got 'perhaps'"),
        ({"threshold": float("nan")}, "threshold: should be less than 1, got nan"),
    ],
)
def test_wrong_values_are_told_in_plain_words(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as error:
        HybridConfig(**given)
    assert str(error.value) == told
