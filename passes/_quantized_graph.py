"""A function whose products read dequantised operands, by what is stored of each tensor."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm_ffi import structural_map

from hybridc.compiler.ir.rewrite import Expr, Graph, constant, operator, shape
from hybridc.compiler.model import Array
from hybridc.compiler.quantization.products import Product
from hybridc.passes import _rounding, _stored_tensors
from hybridc.passes._rounding import Storage
from hybridc.passes._stored_tensors import Site

op: Any = relax.op

# Half of what int32 holds; the other half is left to the product.
_BIAS = 2**30


@dataclass
class QuantizedGraph:
    """One function, its products to be computed in 8 bits, and what is stored so.

    `products` and `shifts` go by the variable of the product, `sites` and `stored` by that which
    is stored; products that are `kept` read what was there before.
    """

    function: Expr
    graph: Graph
    products: dict[Expr, Product]
    sites: dict[Expr, Site]
    stored: dict[Expr, Storage]
    shifts: dict[Expr, Array]
    kept: frozenset[Expr] = frozenset()
    narrow: dict[Expr, Expr] = field(default_factory=dict[Expr, Expr])
    steps: dict[Expr, Array] = field(default_factory=dict[Expr, Array])
    builder: Any = field(default_factory=relax.BlockBuilder)

    def rewritten(self) -> Expr:
        """The function on dequantised operands."""
        heads = [b for param in self.function.params for b in self._store(param)]
        blocks = []
        for block in self.function.body.blocks:
            body = [new for binding in block.bindings for new in self._binding(binding)]
            blocks.append(type(block)([*heads, *body]))
            heads = []
        return relax.Function(
            self.function.params,
            relax.SeqExpr(blocks, self.function.body.body),
            self.function.ret_ty,
            self.function.is_pure,
            self.function.attrs,
        )

    def _binding(self, binding: Any) -> Iterator[Any]:
        var, value = binding.var, binding.value
        if var in self.products:
            yield from self._product(binding)
        elif var in self.kept:
            yield binding
        elif (product := self._biased(value)) is not None:
            yield relax.VarBinding(var, self._with_bias(value, product))
        else:
            yield relax.VarBinding(var, structural_map(value, (tvm.ir.Var, self._shared)))
        yield from self._store(var)

    def _shared(self, var: Expr) -> Expr:
        """What readers of a variable take that are no products."""
        site = self.sites.get(var)
        return self.narrow[var] if site is not None and self._everywhere(site) else var

    def _everywhere(self, site: Site) -> bool:
        """Whether all readers take the 8 bits: feature maps, and what is moved before."""
        moved = any(not product.data.same_as(site.variable) for product in site.products)
        return site.shared or moved

    def _product(self, binding: Any) -> Iterator[Any]:
        product = self.products[binding.var]
        data = self.narrow.get(product.data, product.data)
        storage = self.stored[_stored_tensors.origin(product, self.graph)]
        stored, scale = _rounding.weights(product, storage.factors)
        self.steps[binding.var] = np.float32(storage.scale) * scale
        weight = _dequantized(constant(stored, "int8"), scale, product.channel)
        call = tvm.ir.Call(
            binding.value.op, [data, weight], binding.value.attrs, binding.value.ty_args
        )
        shift = self.shifts[binding.var]
        if not shift.any() or self._bias_of(binding.var) is not None:
            yield relax.VarBinding(binding.var, call)
            return
        plain = relax.VarBinding(relax.DataflowVar("product", binding.var.ty), call)
        yield plain
        term = self._term(-shift, product)
        yield relax.VarBinding(binding.var, op.add(plain.var, term))

    def _bias_of(self, var: Expr) -> Expr | None:
        """The sum with a constant for each channel that alone reads a product, or None."""
        if self.graph.uses[var] != 1 or var in self.sites:
            return None
        readers = [v for v in self.graph.values.values() if operator(v) == "add" and var in v.args]
        return readers[0] if readers and self._biased(readers[0]) is not None else None

    def _biased(self, value: Expr) -> Product | None:
        """The product to which a value adds a constant for each channel and reads alone."""
        if operator(value) != "add":
            return None
        for operand, other in (value.args, list(value.args)[::-1]):
            product = self.products.get(operand)
            bias = self.graph.constant(other)
            if product is None or bias is None or self.graph.uses[operand] != 1:
                continue
            if operand not in self.sites and _channels(bias, product) is not None:
                return product
        return None

    def _with_bias(self, value: Expr, product: Product) -> Expr:
        """The sum of a product with its bias, less what 8 bits shift it by."""
        first = value.args[0].same_as(product.variable)
        bias = _channels(self.graph.constant(value.args[1 if first else 0]), product)
        assert bias is not None
        total = bias - self.shifts[product.variable]
        return op.add(product.variable, self._term(total, product))

    def _term(self, term: Array, product: Product) -> Expr:
        """A number for each output channel, in steps of the product where these can hold it."""
        steps = self.steps[product.variable]
        along = (1, -1, 1, 1) if product.convolves else (-1,)
        with np.errstate(divide="ignore", invalid="ignore"):  # a step too small for float32 is 0
            integers = np.round(term.astype(np.float64) / steps)
        if not np.all(np.abs(integers) < _BIAS):
            return constant(term.reshape(along), "float32")
        term_steps = _dequantized(constant(integers, "int32"), steps, 0, "int32")
        return op.reshape(term_steps, (1, term.size, 1, 1)) if product.convolves else term_steps

    def _store(self, var: Expr) -> Iterator[Any]:
        """Quantise a variable, and dequantise it for its readers."""
        if var not in self.stored:
            return
        storage, data, scale = self.stored[var], var, self.stored[var].scale
        integers = self.products.keys() | self.narrow.keys()
        if storage.factors is not None or _stored_tensors.divides(var, self.graph, integers):
            # One factor for all of it: a division would take longer.
            factors = 1.0 if storage.factors is None else storage.factors.astype(np.float64)
            ratio = constant(np.asarray(1 / (factors * scale)), "float32")
            scaled = self._bind("scaled", op.multiply(var, ratio))
            yield scaled
            data, scale = scaled.var, 1.0
        zero = constant(np.asarray(storage.zero), "uint8")
        quantized = op.quantize(data, constant(np.asarray(scale), "float32"), zero, 0, "uint8")
        stored = self._bind("stored", quantized)
        yield stored
        step = constant(np.asarray(storage.scale), "float32")
        back = self._bind("back", op.dequantize(stored.var, step, zero, 0, "float32"))
        yield back
        self.narrow[var] = back.var

    def _bind(self, name: str, value: Expr) -> Any:
        value = self.builder.normalize(value)
        return relax.VarBinding(relax.DataflowVar(name, value.ty), value)


def _channels(bias: Array | None, product: Product) -> Array | None:
    """A constant as one number for each output channel, or None."""
    outputs = product.weight.shape[product.channel]
    rank = len(shape(product.variable))
    axis = 1 if product.convolves else rank - 1
    if bias is None or bias.ndim > rank or bias.dtype != np.float32:
        return None
    wide = (1,) * (rank - bias.ndim) + bias.shape
    others = [extent for place, extent in enumerate(wide) if place != axis]
    if set(others) - {1} or wide[axis] not in (1, outputs):
        return None
    return np.broadcast_to(bias.reshape(-1), (outputs,))


def _dequantized(data: Expr, scale: Array, axis: int, dtype: str = "int8") -> Expr:
    """Constant integers with a scale for each place of an axis."""
    if scale.size == 1:
        scale, axis = scale.reshape(()), 0
    zeros = constant(np.zeros(scale.shape), dtype)
    return op.dequantize(data, constant(scale, "float32"), zeros, axis, "float32")
