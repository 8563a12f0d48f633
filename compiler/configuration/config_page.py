"""The reference page of the configuration, made from its model: `docs/configuration.md`.

python -m hybridc.compiler.configuration.config_page > docs/configuration.md
"""

from typing import Any, get_args, get_origin

from hybridc.compiler.configuration.config import HybridConfig, names
from hybridc.compiler.configuration.descriptions import DESCRIPTIONS

_HEAD = """# Configuration

<!-- Made by `python -m hybridc.compiler.configuration.config_page` from what lies beside it. -->

Every option of a compilation has one name. It is an option of `hybridc compile` (`level_weights` is
`--level-weights`), a key of a file given with `--config`, and a field of `hybridc.HybridConfig`:

```toml
# fast.toml
strategy = "adaptive"
max_latency = "5ms"
budget = "10min"
components = ["neural", "precision"]

[min_accuracy]
cosine = 0.999
```

```console
$ hybridc compile model.onnx --config fast.toml --budget 5min
```

```python
config = hybridc.HybridConfig.read(Path("fast.toml"))
artifact = hybridc.compile("model.onnx", config=config)
```

The command line overrides the file, and an argument of `hybridc.compile` that is not its default
overrides the configuration. The file's name ends in `.toml`, or in `.yaml` or `.yml`
(`pip install 'hybridc[yaml]'`). An unknown key is an error, which names the nearest one. On the
command line, lists are separated by commas (`--order bf16,tuned`), and tables are given by
repeating the option (`--weights neural=0.6`).

A **target as JSON** describes a CPU in the words of TVM, where no name does: `--target '{"kind":
"llvm", "mcpu": "skylake-avx512", "mattr": ["-avx512f"]}'`.

| key | meaning |
|---|---|
| `kind` | `llvm` |
| `mcpu` | LLVM's name of the CPU; default: this host's, as for `cpu` |
| `mattr` | instruction sets that code may use besides (`+avx512vnni`) or must not (`-avx512f`) |
| `num-cores` | number of threads, which `--threads` overrides |
| `caches` | sizes of the L1, L2 and L3 caches in bytes; default: this host's |
| `machine` | how fast a core is, as `hybridc doctor --probe` measures it |

`hybridc inspect --json` shows these facts of an artifact under `target`, with `cpu` for `mcpu` and
`threads` for `num-cores`. For the target `cpu`, code uses what this host offers, whatever LLVM
knows of the CPU's name: a hypervisor may hide instruction sets, and LLVM may not know a new CPU.
`hybridc doctor` says what code is generated for.

[Strategies](strategies.md) explains strategies, modes and components, and [contracts](contract.md)
the limits.

| name | type | default | meaning |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    fields = HybridConfig.model_fields.values()
    rows = [
        f"| `{name}` | {_type(field.annotation)} | {_default(field.default)} |"
        f" {DESCRIPTIONS[name]} |"
        for name, field in zip(names(), fields, strict=True)
    ]
    return _HEAD + "\n".join(rows) + "\n"


def _type(annotation: Any) -> str:
    """A type in words: `text`, `list of names`, `one of a, b`."""
    arguments = [each for each in get_args(annotation) if each is not type(None)]
    origin = get_origin(annotation)
    if origin is tuple:
        return "list"
    if origin is dict:
        return "table of numbers"
    if arguments and all(isinstance(each, str) for each in arguments):
        return ", ".join(f"`{each}`" for each in arguments)
    if arguments:
        return _type(arguments[0])
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, "path")


def _default(value: Any) -> str:
    match value:
        case None | () | {}:
            return "-"
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)


if __name__ == "__main__":
    print(page(), end="")
