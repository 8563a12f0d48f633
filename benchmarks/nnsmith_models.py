"""Random ONNX models by NNSmith, for benchmarks/fuzz_models.py.

That runs this in an interpreter which has NNSmith (`pip install 'hybridc[fuzz]'`):

    PYTHON benchmarks/nnsmith_models.py --first 0 --count 25 --nodes 10 --output FOLDER

For each seed it writes SEED.onnx and SEED.npz, the inputs and torch's outputs.  Seeds for which
NNSmith finds no model are left out.  NNSmith 0.1 needs three remedies, which are here: its exporter
is torch's older one, onnx no longer has a function that it calls, and what its probe of operators
found is kept in the folder, not in the home.
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

_MOST_ELEMENTS = 4096  # of a tensor
_PATIENCE = 10_000  # ms of a search for a model
_OPSET = 14


def _use_older_libraries() -> None:
    """Let NNSmith export by tracing, and serialise models, as it was written for."""
    import onnx
    import torch

    onnx._serialize = lambda model: model.SerializeToString()  # type: ignore[attr-defined]
    export = torch.onnx.export

    def older(*arguments: Any, **options: Any) -> Any:
        return export(*arguments, **{**options, "dynamo": False, "opset_version": _OPSET})

    torch.onnx.export = older


def _operators(folder: Path) -> tuple[Any, Any]:
    """The class of models, and the operators that torch exports and ONNX Runtime runs."""
    from nnsmith import narrow_spec  # pyright: ignore[reportMissingImports]
    from nnsmith.backends import BackendFactory  # pyright: ignore[reportMissingImports]
    from nnsmith.materialize import Model  # pyright: ignore[reportMissingImports]

    narrow_spec.NNSMITH_CACHE_DIR = str(folder / "probe")
    kind = Model.init("onnx", backend_target="cpu")
    runtime = BackendFactory.init("onnxruntime", target="cpu", optmax=False)
    return kind, narrow_spec.auto_opset(kind, runtime)


def _write(kind: Any, operators: Any, seed: int, nodes: int, folder: Path) -> None:
    import onnx
    import torch
    from nnsmith.graph_gen import model_gen  # pyright: ignore[reportMissingImports]

    torch.manual_seed(seed)
    found = model_gen(
        opset=operators,
        method="symbolic-cinit",
        seed=seed,
        max_nodes=nodes,
        timeout_ms=_PATIENCE,
        max_elem_per_tensor=_MOST_ELEMENTS,
    )
    model = kind.from_gir(found.make_concrete())
    model.refine_weights()
    answer = model.make_oracle()
    arrays = {f"input {name}": array for name, array in answer.input.items()}
    arrays |= {f"output {name}": array for name, array in answer.output.items()}
    np.savez(folder / f"{seed}.npz", **arrays)
    onnx.save(model.native_model, folder / f"{seed}.onnx")


def main() -> int:
    """Write the models; what went wrong with a seed goes to stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=25, help="seeds")
    parser.add_argument("--nodes", type=int, default=10, help="operators of each")
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.output.mkdir(parents=True, exist_ok=True)
    _use_older_libraries()
    kind, operators = _operators(options.output)
    for seed in range(options.first, options.first + options.count):
        try:
            _write(kind, operators, seed, options.nodes, options.output)
        except Exception as error:  # of z3's, torch's and its own
            sys.stderr.write(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
