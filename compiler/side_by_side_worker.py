"""A process that compiles one model with the options it is told; see `side_by_side`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler import child, plans
from hybridc.compiler.side_by_side import restored


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Compile, write the artifact, and tell the rest of the draft."""
    import tvm

    from hybridc.compiler.advisers import adviser
    from hybridc.compiler.attempt import draft
    from hybridc.compiler.certify import Trial
    from hybridc.compiler.clock import Clock
    from hybridc.compiler.model import Model, TensorSpec

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
    feeds = [_feed(folder / f"feed{number}.npz") for number in range(told["feeds"])]
    options = plans.Options(**restored(request["options"]), verify="off")
    with adviser(options) as make:
        made = draft(Trial(model, feeds, []), plans.plan(options), make, Clock(options.progress))
    return made.save(Path(request["output"]))


def _feed(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


if __name__ == "__main__":
    child.serve(answer)
