"""What Olive asks of its user: a workflow, and samples to calibrate on.

Olive imports this file by its path, in an interpreter where it is installed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import rival
from olive.data.registry import Registry  # type: ignore[import-not-found]

_SEARCHED = 16  # models that Olive may make


@Registry.register_dataset("samples")  # type: ignore[misc]
def samples(told: Mapping[str, Any], **_: Any) -> list[tuple[dict[str, Any], int]]:
    """The samples to calibrate on, each with a label that nobody reads."""
    return [(sample, 0) for sample in _task(told).samples("calibration")]


def _task(fields: Mapping[str, Any]) -> rival.Task:
    folder = Path(fields["folder"])
    return rival.Task(folder, fields["rival"], fields["model"], fields["loss"], fields["wire"])


def session(path: str) -> rival.Run:
    """A model opened by ONNX Runtime, as a call."""
    opened = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda feed: opened.run(None, dict(feed))


def workflow(told: Mapping[str, Any], model: str, folder: str) -> dict[str, Any]:
    """A search over quantisation for the fastest model.

    It has no goal for the figure: version 0.13 cannot write down a metric of the user's own, by
    whatever fields it is described.  So `fastest` shows all that the search made.
    """
    data = {
        "name": "samples",
        "user_script": __file__,
        "load_dataset_config": {"type": "samples", "params": {"told": told}},
        "dataloader_config": {"type": "no_auto_batch_dataloader"},
    }
    return {
        "input_model": {"type": "ONNXModel", "model_path": model},
        "systems": {"here": {"type": "LocalSystem", "accelerators": [_accelerator()]}},
        "target": "here",
        "data_configs": [data],
        "evaluators": {"clock": {"metrics": [_speed()]}},
        "evaluator": "clock",
        "passes": {"quantise": {"type": "OnnxQuantization", "data_config": "samples"}},
        "search_strategy": {"execution_order": "joint", "sampler": "tpe", "max_iter": _SEARCHED}
        | {"sampler_config": {"max_samples": _SEARCHED, "seed": 0}},
        "output_dir": f"{folder}/olive",
        "cache_dir": f"{folder}/olive-cache",
        "log_severity_level": 3,
    }


def fastest(found: Any) -> list[str]:
    """The files of all models that a search made, by their latency.

    Olive itself would show what nothing surpasses: by the clock alone one model, whatever its
    figure.
    """
    nodes = [n for n in found.footprint.nodes.values() if n.metrics and n.parent_model_id]
    ordered = sorted(nodes, key=lambda node: node.metrics.value["latency-avg"].value)
    return [str(found.footprint.get_model_path(node.model_id)) for node in ordered]


def _accelerator() -> dict[str, Any]:
    return {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}


def _speed() -> dict[str, Any]:
    average = {"name": "avg", "priority": 1}
    return {
        "name": "latency",
        "type": "latency",
        "backend": "torch_metrics",
        "data_config": "samples",
        "sub_types": [average],
    }
