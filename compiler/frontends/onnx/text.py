"""TfIdfVectorizer of integers, and whether an optional value is there."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.ir.rewrite import constant


def _tf_idf(node: Node) -> Expr:
    """How often each n-gram of the pool stands in each row, perhaps with elements skipped."""
    if node.get("pool_strings"):
        raise UnsupportedError("strings")
    x, s, shape = node.inputs[0], node.scope, node.shape()
    length = shape[-1] if shape else 1
    rows = s.reshape(x, [-1, length])
    columns = node.get("ngram_indexes")
    size = max(columns) + 1
    parts: list[Expr] = []
    for n, grams in _pools(node):
        if len(grams):
            parts.append(_counts(node, rows, n, np.array(grams)))
    count = s.concat(parts, axis=1) if len(parts) > 1 else parts[0]
    weights = np.array(node.get("weights") or [1.0] * len(columns))
    match node.get("mode"):
        case "IDF":
            count = s.multiply(s.minimum(count, 1.0), weights)
        case "TFIDF":
            count = s.multiply(count, weights)
        case _:
            pass  # TF: the counts as they are
    matrix = np.zeros((len(columns), size))
    matrix[_order(node), columns] = 1
    weighted = s.matmul(count, constant(matrix, "float32"))
    return s.reshape(weighted, [*shape[:-1], size])


def _pools(node: Node) -> list[tuple[int, list[list[int]]]]:
    """The n-grams of each n that counts, in the order of the pool."""
    pool, starts = node.get("pool_int64s"), [*node.get("ngram_counts")]
    ends = [*starts[1:], len(pool)]
    found: list[tuple[int, list[list[int]]]] = []
    for n, (first, last) in enumerate(zip(starts, ends, strict=True), 1):
        grams = [pool[i : i + n] for i in range(first, last, n)]
        found.append((n, grams))
    return found


def _order(node: Node) -> Sequence[int]:
    return range(len(node.get("ngram_indexes")))


def _counts(
    node: Node, rows: Expr, n: int, grams: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> Expr:
    """`[rows, grams]` as float32; an n outside of the lengths that are wanted counts nothing."""
    s = node.scope
    batch, length = (int(extent) for extent in rows.ty.shape.values)
    total: Expr = constant(np.zeros((batch, len(grams))), "float32")
    if not node.get("min_gram_length") <= n <= node.get("max_gram_length"):
        return total
    skips = range(node.get("max_skip_count") + 1) if n > 1 else range(1)
    for skip in skips:
        starts = length - (n - 1) * (skip + 1)
        if starts < 1:
            continue
        places = np.arange(starts)[:, None] + np.arange(n) * (skip + 1)
        taken = s.take(rows, relax.const(places.ravel(), "int64"), axis=1)
        taken = s.reshape(taken, [batch, starts, 1, n])
        same = s.equal(taken, constant(grams[None, None], dtype(rows)))
        whole = s.min(s.astype(same, "float32"), axis=[3])
        total = s.add(total, s.sum(whole, axis=[1]))
    return total


def _has_element(node: Node) -> Expr:
    """What is given is there; what is left out is not."""
    return constant(np.array(node.input(0) is not None), "bool")


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {"OptionalHasElement": _has_element, "TfIdfVectorizer": _tf_idf}
)
