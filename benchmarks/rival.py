"""What a rival makes of a model within a limit on its figure, in an interpreter of its own.

    python rival.py FOLDER          where `task.json`, the model and the samples lie

That interpreter needs the rival alone, nothing of hybridc.  The figure is the other process's: it
is asked by a line that names a file of outputs for all samples, and answers by a line.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Feed = Mapping[str, Any]
Run = Callable[[Feed], Sequence[Any]]
_PACKAGES = {"nncf": ("nncf", "openvino"), "olive": ("olive-ai", "onnxruntime")}


@dataclass(frozen=True)
class Task:
    """A model and its samples; `wire` is where lines to the other process are written."""

    folder: Path
    rival: str
    model: str
    loss: float
    wire: int

    @classmethod
    def read(cls, folder: Path, wire: int) -> "Task":
        """What the other process wrote."""
        fields = json.loads((folder / "task.json").read_text())
        return cls(folder, fields["rival"], fields["model"], fields["loss"], wire)

    def samples(self, use: str) -> list[dict[str, Any]]:
        """The samples of a use, `calibration` or `validation`, in their order."""
        count = len(list(self.folder.glob(f"{use}-*.npz")))
        return [dict(np.load(self.folder / f"{use}-{i}.npz")) for i in range(count)]

    def figure(self, run: Run) -> tuple[float, list[list[Any]]]:
        """What the other process says of the outputs for all samples that validate, and these."""
        found = [list(run(feed)) for feed in self.samples("validation")]
        outputs = {f"{i}-{j}": a for i, sample in enumerate(found) for j, a in enumerate(sample)}
        np.savez(self.folder / "outputs.npz", **outputs)
        self.tell({"outputs": "outputs.npz"})
        return float(sys.stdin.readline()), found

    def tell(self, data: Mapping[str, Any]) -> None:
        """Write a line."""
        os.write(self.wire, f"{json.dumps(data)}\n".encode())


def nncf(task: Task) -> tuple[Path, Callable[[], Run]]:
    """OpenVINO's model by `quantize_with_accuracy_control`, and what loads it."""
    import nncf as rival  # type: ignore[import-not-found]
    import openvino

    def run(compiled: Any) -> Run:
        return lambda feed: list(compiled(feed).values())

    def figure(compiled: Any, items: Iterable[Any]) -> tuple[float, list[list[Any]]]:
        # It counts what is asked of the items.  Their outputs rank products: else it would ask for
        # the figure of each item alone, which not every measure has.
        for _ in items:
            pass
        return task.figure(run(compiled))

    core = openvino.Core()
    quantised = rival.quantize_with_accuracy_control(
        core.read_model(task.model),
        calibration_dataset=rival.Dataset(task.samples("calibration")),
        validation_dataset=rival.Dataset(task.samples("validation")),
        validation_fn=figure,
        max_drop=task.loss,
        drop_type=rival.DropType.ABSOLUTE,
        # NNCF 3.4 ends in a KeyError where a table that it quantises is looked up by a constant.
        ignored_scope=rival.IgnoredScope(types=["Gather"], validate=False),
    )
    path = task.folder / "nncf.xml"
    openvino.save_model(quantised, str(path), compress_to_fp16=False)
    return path, lambda: run(core.compile_model(str(path), "CPU"))


def olive(task: Task) -> tuple[Path, Callable[[], Run]]:
    """ONNX Runtime's model by Olive's search over quantisation, and what loads it.

    Of all that Olive made, the fastest by its own clock that is within the limit.
    """
    import rival_olive
    from olive import run as search  # type: ignore[import-not-found]

    least = task.figure(rival_olive.session(task.model))[0] - task.loss
    fields = {**asdict(task), "folder": str(task.folder)}
    searched = search(rival_olive.workflow(fields, task.model, str(task.folder)))
    found = rival_olive.fastest(searched)
    within = (path for path in found if task.figure(rival_olive.session(path))[0] >= least)
    if (best := next(within, None)) is None:
        raise SystemExit(f"none of {len(found)} models that Olive made is within the limit")
    path = task.folder / "olive.onnx"
    shutil.copy(best, path)
    return path, lambda: rival_olive.session(str(path))


RIVALS: Mapping[str, Callable[[Task], tuple[Path, Callable[[], Run]]]] = {
    "nncf": nncf,
    "olive": olive,
}


def main(folder: Path) -> None:
    """Do the task, and tell what was made of it, in how many seconds and by which versions."""
    wire = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no line of ours
    task = Task.read(folder, wire)
    start = time.perf_counter()
    path, load = RIVALS[task.rival](task)
    seconds = time.perf_counter() - start
    task.figure(load())  # the last one that is asked for is that of the file
    versions = {name: version(name) for name in _PACKAGES[task.rival]}
    task.tell({"made": path.name, "seconds": seconds, "versions": versions})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Do one task with one rival.")
    parser.add_argument("folder", type=Path, help="where task.json, model and samples lie")
    main(parser.parse_args().folder)
