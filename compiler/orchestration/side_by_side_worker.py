"""A process that compiles one model with the options it is told; see `side_by_side`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler.configuration import plans
from hybridc.compiler.model import Array, Model, TensorSpec
from hybridc.compiler.orchestration.side_by_side import restored
from hybridc.compiler.processes import child


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Compile, write the artifact, and tell the rest of the draft."""
    import tvm

    from hybridc.compiler.assurance.terms import Trial
    from hybridc.compiler.log.advisers import adviser
    from hybridc.compiler.measurement.clock import Clock
    from hybridc.compiler.orchestration.attempt import draft

    folder = Path(request["folder"])
    told = json.loads((folder / "model.json").read_text())

    def specs(key: str) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in told[key])

    def reference(_: object) -> list[Any]:
        raise NotImplementedError("the parent compares answers")

    model = Model(
        name=told["name"],
        module=tvm.ir.load_json((folder / "module.json").read_text()),
        inputs=specs("inputs"),
        outputs=specs("outputs"),
        reference=reference,
        notes=tuple(told["notes"]),
    )
    feeds = [_feed(folder, model.inputs)]
    options = plans.Options(**restored(request["options"]), verify="off")
    with adviser(options) as make:
        made = draft(Trial(model, feeds, []), plans.plan(options), make, Clock(options.progress))
    return made.save(Path(request["output"]))


def _feed(folder: Path, inputs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The sample; of types that numpy does not know, the file holds the bytes alone."""
    found: dict[str, Array] = {}
    for place, spec in enumerate(inputs):
        array = np.load(folder / f"feed{place}.npy", allow_pickle=False)
        found[spec.name] = array.view(spec.dtype) if array.dtype.kind == "V" else array
    return found


if __name__ == "__main__":
    child.serve(answer)
