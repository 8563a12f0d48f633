"""Replace convolutions and matrix products with constant weights by kernels on packed weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler.aot import worth
from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    are_known,
    constant,
    opened,
    operator,
    rewrite,
    shape,
    updated,
)
from hybridc.compiler.kernels.convolutions import winograd, winograd_cost, winograd_transforms
from hybridc.compiler.kernels.convolutions.winograd_work import Choice, Layer
from hybridc.compiler.kernels.products import (
    byte_windows,
    contractions,
    inner_product,
    packing,
    vector_width,
)
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import compression
from hybridc.compiler.target import Target
from hybridc.passes import (
    _algorithms,
    _batched_weights,
    _byte_windows,
    _computed_weights,
    _constant_products,
    _convolutions,
    _wide_weights,
)

# Types of activations and weights, and those that their product may have.
_RESULTS = {
    ("float32", "float32"): ("float32",),
    ("bfloat16", "bfloat16"): ("bfloat16", "float32"),
    ("float16", "float16"): ("float16", "float32"),
    ("uint8", "int8"): ("int32",),
}


@dataclass(frozen=True)
class PackWeights(Pass):
    """Replace convolutions and matrix products with constant weights by kernels on packed weights.

    The weights are rearranged at compile time into blocks of one vector of output channels (or half
    a vector, where that leaves fewer lanes unused), in the order in which the kernel reads them.
    Weights of 16 bits are packed by pairs of inputs if one instruction adds up their products
    faster; else they become float32 when the artifact is loaded, unless their product waits for
    them, or none do (`in_kernel`), which takes less memory.  Convolutions must be channels last
    (`layout`); others stay as they are, and so do products whose weights are not constant.  Weights
    of a convolution in fp32 that the model computes are packed as it runs.  Bytes are multiplied by
    the VNNI instruction, by the older one that saturates where the weights can be arranged so that
    it never does, or in pairs of 16 bits: always exactly.

    3x3 convolutions of stride 1 use Winograd's algorithm if that was measured to be faster
    (`hybridc tune`), or without measurements if an analytic model predicts it.  In fp32 it rounds
    differently, by about 1e-5 of the largest output; on integers it is exact.  `winograd=false`
    keeps all convolutions direct.
    """

    winograd: bool = True
    in_kernel: bool = False

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every function of the graph; the kernels join the module."""
        builder = relax.BlockBuilder(module)
        near = _algorithms.stay_near(module, context.target)
        alone = worth.expected(module, context.target)
        packer = _Packer(context, builder, self.winograd, self.in_kernel, near, alone)
        rewritten = rewrite(rewrite(module, _convolutions.pads_apart), packer.rule)
        functions = builder.get().functions_items()
        kernels = {var: func for var, func in functions if isinstance(func, tirx.PrimFunc)}
        return module if rewritten is module else updated(rewritten, kernels)

    def exact(self) -> "PackWeights":
        """Every convolution direct."""
        return replace(self, winograd=False)


@dataclass(frozen=True)
class _Packer:
    """Rewrites one call at a time; the builder makes equal kernels one.

    Weights of the model are `near` where all stay in the last cache from one run to the next.
    `expected` is the target with the threads that the model will run on.
    """

    context: Context
    builder: Any
    winograd: bool
    in_kernel: bool
    near: bool
    expected: Target

    @property
    def target(self) -> Target:
        return self.context.target

    def rule(self, value: Expr, graph: Graph) -> Expr | None:
        """Take the calls of known shapes and of types with a kernel, and of constant weights.

        Of convolutions those that the model computes will do.
        """
        name = operator(value)
        if name not in ("nn.conv2d", "matmul"):
            return None
        weight = graph.constant(value.args[1])
        tensors = [*value.args, value]
        convolves = name == "nn.conv2d"
        if not all(_constant_products.is_sized(tensor.ty) for tensor in tensors):
            return None
        if weight is None:
            take = _computed_weights.replaced
            return take(value, self.target, self.builder) if convolves else None
        if convolves and not _convolutions.has_kernel(value, graph):
            return None
        data, weights, result = (str(tensor.ty.dtype) for tensor in tensors)
        if result not in _RESULTS.get((data, weights), ()):
            return None
        weight = self._held(value, weight)
        return self._conv2d(value, weight, graph) if convolves else self._dense(value, weight)

    def _held(self, value: Expr, weight: Array) -> Array:
        """Weights in the type that their kernel reads."""
        widener = _wide_weights.Widener(self.context.compressed, self.near, self.target)
        made = _wide_weights.Product(value, weight)
        wide = None if self.in_kernel else widener.widened(made)
        return weight if wide is None else wide

    def _dense(self, call: Expr, weight: Array) -> Expr | None:
        if len(shape(call.args[0])) < 2:
            return None
        if weight.ndim > 2 and (batched := _batched_weights.of_call(call, weight, self.target)):
            kernel, packed = batched
            self._follow(weight, partial(_batched_weights.packed, target=self.target), packed)
            return self._call("batch_matmul", kernel, (call, call.args[0]), packed)
        return self._matrix(call, weight) if weight.ndim == 2 else None

    def _matrix(self, call: Expr, weight: Array) -> Expr:
        """The product of a call's activations with `[K, N]`."""
        data, (depth, columns) = call.args[0], weight.shape
        lanes, rows = self._lanes(weight, columns), opened(shape(data))[:-1]
        if (windows := _byte_windows.of_matrix(weight, rows, self.target)) is not None:
            kernel = byte_windows.dense((*rows, depth), windows, columns, *_types(call))
            return self._call("dense", kernel, (call, data), *windows)
        if self._crossed(weight, rows):
            packed = packing.pack_matrix(weight, lanes, self._group(weight))
            kernel = inner_product.dense((*rows, depth), packed, columns, *_types(call))
            terms = inner_product.column_terms(weight)
            return self._call("dense", kernel, (call, data), packed, terms)
        pairs = weight.dtype == np.float32 and self._waits(weight, rows)

        def pack(matrix: Array) -> Array:
            packed = packing.pack_matrix(matrix, lanes, self._group(matrix))
            return packing.in_pairs(packed) if pairs else packed

        packed = pack(weight)
        self._follow(weight, pack, packed)
        return self._dense_call(call, packed, columns)

    def _waits(self, weight: Array, rows: Sequence[Any]) -> bool:
        """Whether a product of few rows with `[K, N]` is as fast as its weights come."""
        if not are_known(rows):
            return False
        depth, columns = weight.shape
        return packing.waits_for_weights(prod(rows), depth, columns, self.target)

    def _crossed(self, weight: Array, rows: Sequence[Any]) -> bool:
        """Whether rows of bytes are multiplied with `[K, N]` by Winograd's inner product."""
        if weight.dtype != np.int8 or not are_known(rows):
            return False
        depth, columns = weight.shape
        return inner_product.pays(prod(rows), depth, columns, self.target)

    def _conv2d(self, call: Expr, weight: Array, graph: Graph) -> Expr | None:
        if not _convolutions.is_channels_last(call):
            return None
        data, padding, fill = _convolutions.padded(call, graph)
        conv = replace(_convolutions.attributes(call, weight), padding=padding, fill=fill)
        source, conv = _convolutions.sized(call, data, conv)
        if _convolutions.is_depthwise(call):
            taps = _convolutions.taps(weight)
            self._follow(weight, _convolutions.taps, taps)
            types = (*_types(call), taps.dtype.name)
            kernel = contractions.depthwise_conv2d(source, taps.shape, conv, *types)
            return self._call("depthwise_conv2d", kernel, (call, data), taps)
        if self.winograd and _algorithms.is_minimal(conv, weight, self.target):
            choice = self._choice(source, weight, conv)
            if choice.side:
                return self._winograd((call, data), weight, conv, choice)
        if conv.pointwise and conv.groups == 1 and weight.shape[1:3] == (1, 1):
            return self._matrix(call, np.ascontiguousarray(weight[:, 0, 0].T))
        return self._direct((call, data), source, weight, conv)

    def _direct(
        self, replaced: tuple[Expr, Expr], source: Sequence[Any], weight: Array, conv: Conv2d
    ) -> Expr:
        """A convolution of every pixel's window as it lies."""
        call, (outputs, *window, _) = replaced[0], weight.shape
        windows = _byte_windows.of_filter(weight, conv, opened(shape(call))[:-1], self.target)
        if windows is not None:
            size = window[0], window[1]
            convolution = byte_windows.conv2d(source, windows, size, outputs, conv, *_types(call))
            return self._call("conv2d", convolution, replaced, *windows)
        lanes = self._lanes(weight, outputs, conv.groups)
        packed, groups = packing.pack_filter(weight, conv.groups, lanes, self._group(weight))
        dense = conv.pointwise and groups == 1 and window == [1, 1]
        packed = packed[:, 0, 0] if dense else packed
        self._follow(weight, lambda w: packing.pack_filter(w, conv.groups, lanes)[0], packed)
        if dense:
            return self._dense_call(call, packed, outputs)
        conv = replace(conv, groups=groups)
        types = *_types(call), _wide_weights.meets_pairs(packed, self.target)
        kernel = contractions.conv2d(source, packed, outputs, conv, *types)
        return self._call("conv2d", kernel, replaced, packed)

    def _choice(self, source: tuple[Any, ...], weight: Array, conv: Conv2d) -> Choice:
        """Winograd's tile, or none: what was measured to be fastest, else what analysis likes."""
        # Integers were measured with weights from memory, or on one thread.
        near = self.near and (_pairs(weight) == 1 or self.expected.threads == 1)
        sized = isinstance(source[0], int)
        image = (source[0] if sized else 1, *source[1:])
        layer = Layer(image, weight.shape[0], conv, _pairs(weight), near)
        choices = winograd_cost.choices(layer, self.expected)
        measured = sized and _pairs(weight) == 1
        return _algorithms.fastest(layer, choices, self.context) if measured else choices[0]

    def _lanes(self, weight: Array, outputs: int, groups: int = 1) -> int:
        """Output channels in a vector; the instructions for narrow types take whole ones."""
        if weight.dtype.name != "float32":
            return self.target.lanes()
        return vector_width.lanes_for(outputs, groups, self.target)

    def _group(self, weight: Array) -> int:
        return packing.group_for(weight.dtype.name, self.target)

    def _winograd(
        self, replaced: tuple[Expr, Expr], weight: Array, conv: Conv2d, choice: Choice
    ) -> Expr:
        wide = weight.astype(np.int16) if _pairs(weight) > 1 else weight
        lanes, side = self.target.lanes(), choice.side

        def pack(filters: Array) -> Array:
            return packing.pack_filter(filters, 1, lanes)[0]

        packed = winograd_transforms.transform_filter(pack(wide), side)
        self._follow(weight, pack, packed, side)
        source = opened(shape(replaced[1]))
        types, outputs = _types(replaced[0]), weight.shape[0]
        kernel = winograd.conv2d(source, packed, outputs, conv, choice.tiles, types)
        return self._call("winograd_conv2d", kernel, replaced, packed)

    def _follow(
        self, weight: Array, pack: Callable[[Array], Array], made: Array, side: int = 0
    ) -> None:
        """Let the file hold few bits of packed weights that were rounded to them."""
        compression.follow(self.context.compressed, weight, pack, made, side)

    def _dense_call(self, call: Expr, packed: Array, columns: int) -> Expr:
        types = *_types(call), _wide_weights.meets_pairs(packed, self.target)
        kernel = contractions.dense(opened(shape(call.args[0])), packed, columns, *types)
        return self._call("dense", kernel, (call, call.args[0]), packed)

    def _call(
        self, name: str, kernel: PrimFunc, replaced: tuple[Expr, Expr], *weights: Array
    ) -> Expr:
        """The kernel on packed weights in place of a call that reads these activations."""
        call, data = replaced
        var = self.builder.add_func(kernel, name)
        operands = [constant(array, array.dtype.name) for array in weights]
        sizes = _convolutions.given(kernel, data)
        return relax.call_tir(var, [data, *operands, *sizes], call.ty)


def _pairs(weight: Array) -> int:
    """Input channels that Winograd's products take at once: pairs of integers."""
    return 2 if weight.dtype == np.int8 else 1


def _types(call: Expr) -> tuple[str, str]:
    """The types of a call's operands and of its result."""
    return str(call.args[0].ty.dtype), str(call.ty.dtype)
