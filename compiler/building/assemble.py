"""From a module that the pipeline has finished to an artifact that nobody has measured yet."""

from pathlib import Path

from hybridc.compiler.artifacts.artifact import Artifact, lock_of, toolchain
from hybridc.compiler.building.build import ALIGNMENT, Built, build
from hybridc.compiler.interfaces import Context, IRModule
from hybridc.compiler.model import Model
from hybridc.compiler.quantization import compression


def generate(model: Model, module: IRModule, context: Context) -> Built:
    """Code for a model's finished module, which may call its regions and what libraries compute."""
    called = [each.name for each in (*model.regions, *context.offloads)]
    return build(module, context.target, called)


def assemble(
    model: Model, built: Built, context: Context, pipeline: str, plugins: tuple[Path, ...] = ()
) -> Artifact:
    """The artifact, without report and certificate.

    `pipeline` is the text of all passes; `plugins` are files that its backends may be in.
    """
    return Artifact(
        name=model.name,
        inputs=model.inputs,
        outputs=model.outputs,
        target=context.target.describe(),
        pipeline=pipeline,
        library=built.library,
        weights=built.weights,
        regions=model.regions,
        toolchain=toolchain(bool(model.regions), context.offloads, plugins),
        lock=lock_of([*context.kernels, *context.algorithms]),
        alignment=ALIGNMENT,
        device=built.device,
        offloads=tuple(context.offloads),
        plugins=plugins,
        compressed={
            name: found
            for name, array in built.weights.items()
            if (found := compression.of(context.compressed, array)) is not None
        },
    )
