"""Run a graph, unfused at some of its variables, and see what these hold.

The module is compiled for this host, by the passes that are left behind its stage and the rules'
default schedules: a model of ten million products an image takes milliseconds, where TVM's own
lowering would take seconds.
"""

from collections.abc import Sequence
from typing import Any

from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.building.build import ALIGNMENT, build
from hybridc.compiler.interfaces import Context, IRModule
from hybridc.compiler.ir.rewrite import Expr, shape, tidy, updated
from hybridc.compiler.model import Array, TensorSpec
from hybridc.compiler.pipelines import DEFAULT
from hybridc.compiler.runtime.session import InferenceSession

# The pass behind which the rest of the default pipeline turns the graph into kernels.
_STAGE = "integer-arithmetic"


class Taps:
    """A compiled module that gives what some of its variables hold, in their order.

    Inputs of the module are given as they come.  Raises PassError if it cannot be compiled.
    """

    def __init__(self, module: IRModule, variables: Sequence[Expr]) -> None:
        params = list(module["main"].params)
        self._names = [f"x{index}" for index in range(len(params))]
        self._given = {i: params.index(v) for i, v in enumerate(variables) if v in params}
        computed = [v for v in variables if v not in params]
        self._session = _session(module, computed, self._names) if computed else None

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """What the variables hold for inputs in the order of the parameters."""
        found: list[Array] = []
        if self._session is not None:
            found = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        rest = iter(found)
        count = len(found) + len(self._given)
        return [inputs[self._given[i]] if i in self._given else next(rest) for i in range(count)]


def _session(module: IRModule, variables: Sequence[Expr], names: Sequence[str]) -> InferenceSession:
    here = target.parse("cpu")
    tapped = _tapped(module, variables)
    context = Context(here, pipeline.rules())
    steps = pipeline.parse(_rest())
    built = build(pipeline.run(steps, tapped, context), here)
    inputs = _specs(module["main"].params, names)
    outputs = _specs(variables, [f"y{index}" for index in range(len(variables))])
    draft = Artifact(
        name="taps",
        inputs=inputs,
        outputs=outputs,
        target=here.describe(),
        pipeline="",
        library=built.library,
        weights=built.weights,
        alignment=ALIGNMENT,
    )
    return InferenceSession(draft, here.threads)


def _rest() -> str:
    names = [name for name, _ in DEFAULT]
    return ",".join(names[names.index(_STAGE) :])


def _specs(variables: Sequence[Any], names: Sequence[str]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, shape(variable), str(variable.ty.dtype))
        for name, variable in zip(names, variables, strict=True)
    )


def _tapped(module: IRModule, variables: Sequence[Expr]) -> IRModule:
    """The module with `main` returning these variables and nothing else."""
    function = module["main"]
    outputs: dict[Expr, Expr] = {v: relax.Var(f"tap{i}", v.ty) for i, v in enumerate(variables)}
    blocks = []
    for block in function.body.blocks:
        bindings = []
        for binding in block.bindings:
            bindings.append(binding)
            if binding.var in outputs:
                bindings.append(relax.VarBinding(outputs[binding.var], binding.var))
        blocks.append(type(block)(bindings))
    result = [outputs[v] for v in variables]
    whole, ty = result[0], result[0].ty
    if len(result) > 1:
        whole, ty = relax.Tuple(result), relax.TupleType([each.ty for each in result])
    main = relax.Function(
        function.params,
        relax.SeqExpr(blocks, whole),
        ty,
        function.is_pure,
        function.attrs,
    )
    return tidy(updated(module, {module.get_global_var("main"): main}))
