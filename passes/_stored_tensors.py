"""Which tensors of a graph are stored in 8 bits, so that its products can be computed in them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from tvm import relax

from hybridc.compiler.ir.rewrite import Expr, Graph, bindings_of, operator, shape
from hybridc.compiler.quantization.products import Product

# What only moves numbers, or chooses the largest: quantisation may as well come before it.
_MOVES = ("nn.max_pool2d", "permute_dims", "reshape", "squeeze")
# What quantisation behind it can be joined with, so that no division is left.
_JOINED = ("add", "maximum", "minimum", "nn.relu")
_FEATURE_MAP = 4  # axes of images, their channels, rows and columns


@dataclass(frozen=True)
class Site:
    """A variable that is stored in 8 bits, and what for.

    `products` read it, directly or through what only moves numbers.  Where none does, it is a
    branch that is added up to the variable of another site, `joins`.
    """

    variable: Expr
    products: tuple[Product, ...]
    joins: Expr | None = None

    @property
    def shared(self) -> bool:
        """Whether all readers take the 8 bits, so that nothing else is stored: feature maps."""
        return len(shape(self.variable)) == _FEATURE_MAP

    @property
    def direct(self) -> bool:
        """Whether it is a matrix of rows that matrix products alone read in 8 bits, as it is."""
        return not self.shared and all(p.data.same_as(self.variable) for p in self.products)


def find(function: Expr, graph: Graph, products: Sequence[Product], residuals: bool) -> list[Site]:
    """The sites of a function in the order of their products, with `residuals` also of sums."""
    readers: dict[Expr, list[Product]] = {}
    for product in products:
        readers.setdefault(origin(product, graph), []).append(product)
    sites = [Site(variable, tuple(found)) for variable, found in readers.items()]
    if residuals:
        sites += _branches(function, graph, readers)
    return sites


def active(sites: Sequence[Site], kept: Collection[str]) -> list[Site]:
    """The sites that some product needs which is not kept as it is."""
    needed = [site for site in sites if any(p.name not in kept for p in site.products)]
    variables = [site.variable for site in needed]
    return [*needed, *(site for site in sites if site.joins in variables)]


def origin(product: Product, graph: Graph) -> Expr:
    """The variable that a product reads, or that what it reads is only moved from."""
    return _source(product.data, graph)


def _source(expr: Expr, graph: Graph) -> Expr:
    """The variable that `expr` is moved from."""
    found = expr
    while (value := graph.value(found)) is not found and operator(value) in _MOVES:
        before = value.args[0]
        if not isinstance(before, relax.Var) or not _worth(before, value, graph):
            break
        found = before
    return found


def _worth(before: Expr, move: Expr, graph: Graph) -> bool:
    """Whether to quantise ahead of a move: pooling, and feature maps that become rows."""
    if operator(move) == "nn.max_pool2d":
        return True
    source = operator(graph.value(before))
    return len(shape(before)) == _FEATURE_MAP and source != "call_tir"


def _branches(function: Expr, graph: Graph, known: Collection[Expr]) -> Iterator[Site]:
    """The older operands of sums of feature maps that become a site, where they are none yet."""
    order = {binding.var: index for index, binding in enumerate(bindings_of(function))}
    found: list[Expr] = []
    for variable in known:
        value = graph.value(variable)
        while operator(value) in ("maximum", "minimum", "nn.relu"):
            value = graph.value(value.args[0])
        if operator(value) != "add" or not all(each in order for each in value.args):
            continue
        older = min(value.args, key=lambda each: order[each])
        if graph.constant(older) is not None or _source(older, graph) in (*known, *found):
            continue
        if shape(older) == shape(value) and len(shape(older)) == _FEATURE_MAP:
            found.append(older)
            yield Site(older, (), variable)


def divides(expr: Expr, graph: Graph, integers: Collection[Expr]) -> bool:
    """Whether quantising `expr` takes a division: it is no sum or clip of what is in `integers`."""
    if expr in integers or graph.constant(expr) is not None:
        return False
    value = graph.value(expr)
    if operator(value) not in _JOINED:
        return True
    return any(divides(operand, graph, integers) for operand in value.args)
