"""Lower every remaining operator to a loop nest."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvm import relax, tirx, topi
from tvm.ir.transform import Sequential
from tvm.relax.backend import DispatchSortScan

from hybridc.compiler.errors import PassError
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    calls,
    opened,
    operator,
    rewrite,
    shape,
    unless_same,
    updated,
)
from hybridc.compiler.kernels import hyperbolic, lowerings
from hybridc.compiler.kernels.images import pooling, resampling, resampling_rows
from hybridc.compiler.kernels.indexing import joins, reshaping, scatters, takes
from hybridc.compiler.kernels.products import gathered_products, turned_matrices
from hybridc.compiler.kernels.products.batch_matmul import batch_matmul, matrix_vector, open_matmul
from hybridc.compiler.kernels.products.packing import group_of_activations
from hybridc.compiler.kernels.rows import (
    extrema,
    norms,
    scans,
    softmax,
    sorting,
    whole_reductions,
)
from hybridc.compiler.target import Target

# Types of both operands and of the result.
_PACKABLE = {
    ("float32",) * 3,
    ("int16", "int16", "int32"),
    *(((narrow,) * 3) for narrow in ("bfloat16", "float16")),
    *((narrow, narrow, "float32") for narrow in ("bfloat16", "float16")),
}


@dataclass(frozen=True)
class Legalize(Pass):
    """Lower every remaining operator to a loop nest.

    This is TVM's own lowering, except for products of two activations on a CPU, which pack an
    operand so that they vectorise.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Lower all Relax operators to `call_tir`."""
        lanes = context.target.lanes()

        def matmul(builder: Any, call: Any) -> Any:
            left, right = (arg.ty for arg in call.args)
            if not _packable(left, right, call.ty):
                return relax.transform.legalize_ops.linear_algebra._matmul(builder, call)
            if thin := _thin_product(left, right, call.ty):
                name, product = thin
                return builder.call_te(product, *call.args, primfunc_name_hint=name)
            types = (str(left.dtype), str(call.ty.dtype))
            if all(map(_is_fixed, (left, right))):
                group = group_of_activations(types[0], context.target)
                func = batch_matmul(_extents(left), _extents(right), lanes, *types, group)
            elif types == ("float32", "float32"):
                func = open_matmul(*opened(shape(call.args[0]), shape(call.args[1])))
            else:
                return relax.transform.legalize_ops.linear_algebra._matmul(builder, call)
            var = builder.add_func(func, "batch_matmul")
            return relax.call_tir(var, list(call.args), call.ty)

        # A GPU's rules take products as they are.
        cpu = {
            "relax.matmul": matmul,
            "relax.scatter_nd": partial(scatters.scatter_nd, target=context.target),
            "relax.image.resize2d": partial(resampling_rows.resize2d, target=context.target),
            "relax.nn.avg_pool2d": pooling.avg_pool2d,
            "relax.nn.softmax": softmax.softmax,
            "relax.take": takes.take,
            **{
                f"relax.{name}": partial(whole_reductions.reduction, target=context.target)
                for name in whole_reductions.REDUCTIONS
            },
        }
        own = _OWN if context.target.gpu else {**_OWN, **cpu}
        with context.target.tvm:
            lowered = Sequential([DispatchSortScan(), relax.transform.LegalizeOps(own)])(
                module if context.target.gpu else _by_graph(module, context.target)
            )
        return unless_same(module, lowered)

    def ensures(self, module: IRModule) -> None:
        """Hold that no operator without a loop nest is left."""
        left = sorted(_unlowered(module["main"]))
        if left:
            raise PassError(f"no lowering for {', '.join(left)}")


def _by_graph(module: IRModule, target: Target) -> IRModule:
    """The module with kernels of ours that the sequence has no place for.

    Scans and sorts it would lower first, and of a product it does not see what makes the operands.
    """
    if not calls(module, "cumsum", "sort", "argsort", "topk", "matmul"):
        return module
    builder = relax.BlockBuilder(module)

    def lower(value: Any, graph: Any) -> Any:
        for made in (
            scans.lower(builder, value, target),
            sorting.lower(builder, value, target),
            gathered_products.lower(builder, value, graph),
            turned_matrices.lower(value, graph, target),
        ):
            if made is not None:
                return made
        return None

    rewritten = rewrite(module, lower)
    functions = builder.get().functions_items()
    return updated(rewritten, {k: f for k, f in functions if isinstance(f, tirx.PrimFunc)})


def _packable(left: Any, right: Any, result: Any) -> bool:
    types = tuple(str(info.dtype) for info in (left, right, result))
    return types in _PACKABLE and all(
        info.ndim >= 2
        and isinstance(info.shape, relax.ShapeExpr)
        and all(not isinstance(extent, tirx.IntImm) or extent > 0 for extent in info.shape.values)
        for info in (left, right)
    )


def _is_fixed(info: Any) -> bool:
    return all(isinstance(extent, tirx.IntImm) for extent in info.shape.values)


def _thin_product(left: Any, right: Any, result: Any) -> tuple[str, Callable[..., Any]] | None:
    """What computes a product that has nothing to pack: of one step of the depth, or one column."""
    depth, columns = (info.shape.values[-1] for info in (left, right))
    sized = isinstance(depth, tirx.IntImm) and isinstance(columns, tirx.IntImm)
    if not sized or str(left.dtype) != str(result.dtype):
        return None
    if int(depth) == 1 and all(map(_is_fixed, (left, right))):
        return "outer_product", topi.multiply
    one = int(columns) == 1 and str(left.dtype) == "float32"
    return ("matrix_vector", matrix_vector) if one else None


def _extents(info: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in info.shape.values)


# Lowered by functions of ours; matmul depends on the target besides.
_OWN = {
    "relax.add": lowerings.with_constant(topi.add),
    "relax.argmax": extrema.argmax,
    "relax.argmin": extrema.argmin,
    "relax.concat": joins.concat,
    "relax.image.resize2d": resampling.resize2d,
    "relax.atanh": hyperbolic.atanh,
    "relax.cosh": hyperbolic.cosh,
    "relax.divide": lowerings.with_constant(topi.divide),
    "relax.isfinite": lowerings.isfinite,
    "relax.isinf": lowerings.isinf,
    "relax.isnan": lowerings.isnan,
    "relax.multiply": lowerings.with_constant(topi.multiply),
    "relax.nn.adaptive_avg_pool2d": resampling.adaptive_avg_pool2d,
    "relax.nn.group_norm": norms.group_norm,
    "relax.nn.instance_norm": norms.instance_norm,
    "relax.reshape": reshaping.reshape,
    "relax.sinh": hyperbolic.sinh,
    "relax.strided_slice": joins.strided_slice,
    "relax.subtract": lowerings.with_constant(topi.subtract),
    "relax.take": joins.take,
    "relax.tile": lowerings.tile,
}

# Operators that the virtual machine executes itself, by the start of their names.
_BUILTIN = (
    "builtin",
    "call_",
    "memory",
    "reshape",
    "shape_of",
    "shape_to_tensor",
    "tensor_to_shape",
    "vm",
)


def _unlowered(func: Any) -> set[str]:
    found: set[str] = set()

    def visit(expr: Any) -> None:
        name = operator(expr)
        if name and not name.startswith(_BUILTIN):
            found.add(name)

    relax.analysis.post_order_visit(func, visit)
    return found
