"""A graph in which each product can be switched to 8 bits by an input, to measure its effect."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import Expr, constant, shape, tidy, updated
from hybridc.compiler.model import Array
from hybridc.compiler.quantization.products import Product
from hybridc.passes import _rounding
from hybridc.passes._rounding import Storage

op: Any = relax.op


def switched(
    module: IRModule,
    products: Sequence[Product],
    storages: Mapping[str, Storage],
    shifts: Mapping[str, Array],
) -> IRModule:
    """The module with one more parameter for `main`: a float for each product, 1 for 8 bits.

    What 8 bits change is added to what the product reads, to its weights and to its result, times
    the switch; all in fp32.
    """
    function = module["main"]
    switches = relax.Var("switches", relax.TensorType((len(products),), "float32"))
    places = {product.variable: index for index, product in enumerate(products)}
    blocks = []
    for block in function.body.blocks:
        bindings = []
        for binding in block.bindings:
            value = binding.value
            if (index := places.get(binding.var)) is not None:
                switch = op.strided_slice(switches, [0], [index], [index + 1], assume_inbound=True)
                product = products[index]
                shift = shifts[product.name]
                value = _both(product, storages[product.name], shift, switch)
            bindings.append(relax.VarBinding(binding.var, value))
        blocks.append(type(block)(bindings))
    main = relax.Function(
        [*function.params, switches],
        relax.SeqExpr(blocks, function.body.body),
        function.ret_ty,
        function.is_pure,
        function.attrs,
    )
    return tidy(updated(module, {module.get_global_var("main"): main}))


def _both(product: Product, storage: Storage, shift: Array, switch: Expr) -> Expr:
    data = product.data
    change = op.subtract(_rounded(data, storage), data)
    read = op.add(data, op.multiply(change, switch))
    stored, scale = _rounding.weights(product, storage.factors)
    narrow = _rounding.back(product, stored, scale)
    if storage.factors is not None:
        narrow = narrow / storage.factors[:, np.newaxis]
    error = _again(product, read, narrow - product.weight)
    if shift.any():
        along = (1, -1, 1, 1) if product.convolves else (-1,)
        error = op.subtract(error, constant(shift.reshape(along), "float32"))
    exact = _again(product, read, product.weight)
    return op.add(exact, op.multiply(error, switch))


def _again(product: Product, data: Expr, weight: Array) -> Expr:
    call = product.call
    return tvm.ir.Call(call.op, [data, constant(weight, "float32")], call.attrs, call.ty_args)


def _rounded(data: Expr, storage: Storage) -> Expr:
    """What 8 bits leave of a tensor, in fp32."""
    factors: Any = 1.0 if storage.factors is None else storage.factors.astype(np.float64)
    steps = np.asarray(factors * storage.scale)
    value = op.round(op.multiply(data, constant(1 / steps, "float32")))
    low, high = (constant(np.asarray(x - storage.zero), "float32") for x in (0, 255))
    value = op.minimum(op.maximum(value, low), high)
    return op.multiply(value, constant(steps, "float32"))


def moved(product: Product) -> int:
    """Bytes that a product reads and writes in fp32."""
    read, written = (int(np.prod(shape(each))) for each in (product.data, product.variable))
    return 4 * (read + int(product.weight.size) + written)
