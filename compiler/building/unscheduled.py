"""A model up to the pass that schedules its kernels, and what is left to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hybridc.compiler import pipeline
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.building.assemble import assemble, generate
from hybridc.compiler.configuration import plans
from hybridc.compiler.hardware import cached_weights
from hybridc.compiler.interfaces import Advice, Context, IRModule, Pass
from hybridc.compiler.kernel_record import State
from hybridc.compiler.model import Model


@dataclass(frozen=True, eq=False)
class Unscheduled:
    """A model as `module`, whose kernels have no schedules yet.

    `context` is that of the passes so far; `steps` are those to come, that which schedules first.
    """

    model: Model
    module: IRModule
    context: Context
    steps: Sequence[Pass]

    @cached_property
    def state(self) -> State:
        """How the model leaves the caches to its kernels."""
        weights = cached_weights.weight_bytes(self.module)
        return cached_weights.state(weights, self.context.target)

    @property
    def finish(self) -> str:
        """As text the passes behind scheduling."""
        return plans.finish(self.steps)

    def built(self, advice: Advice | None) -> Artifact:
        """The model with the points that are advised, without report and certificate."""
        context = Context(self.context.target, self.context.rules, advice)
        module = pipeline.run(self.steps, self.module, context)
        built = generate(self.model, module, context)
        return assemble(self.model, built, context, pipeline.text(self.steps))
