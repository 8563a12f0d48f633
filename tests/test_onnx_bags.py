"""Bags of embeddings, as exporters write them in a loop, are one kernel of ours.

The bags are of any offsets: empty, behind the end, before the beginning, and in any order, for
which ONNX says what a slice of them is.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx_models import check

from hybridc.compiler.frontends import onnx_model
from hybridc.compiler.ir.evaluate import evaluate

ROWS, WIDTH, PLACES = 30, 16, 20
OFFSETS = [
    [0, 4, 4, 11],
    [0, 0, 20, 20],
    [3, 12, 5, 19],
    [-6, 2, 25, -3],
    [7, 7, 7, 7],
]
REDUCED = ("ReduceSum", "ReduceMean", "ReduceMax")


def _table() -> Any:
    values = np.random.default_rng(3).standard_normal((ROWS, WIDTH)).astype(np.float32)
    return onnx.numpy_helper.from_array(values, "w")


def _parsed(text: str) -> Any:
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(_table())
    return proto


def scanned(reduce: str, weighted: bool = False, last: str = "ends") -> Any:
    """As torch's older exporter writes it: a loop that puts out a row each turn."""
    more, weights = (", float[20] p", "rows") if weighted else ("", "plain")
    return _parsed(f"""
    <ir_version: 8, opset_import: ["": 18]>
    g (int64[20] x, int64[4] o{more}) => (float[4, 16] y)
    <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] most = {{9223372036854775807}},
     bool yes = {{1}}, int64[1] count = {{20}}> {{
        all = Concat <axis = 0> (o, count)
        ends = Slice (all, one, most, zero, one)
        trips = Size ({last})
        y = Loop (trips, yes) <body = b (int64 i, bool c) => (bool d, float[16] r) {{
            from = Gather <axis = 0> (all, i)
            to = Gather <axis = 0> (ends, i)
            start = Unsqueeze (from, zero)
            end = Unsqueeze (to, zero)
            places = Slice (x, start, end, zero)
            plain = Gather <axis = 0> (w, places)
            {"ps = Slice (p, start, end, zero)" if weighted else ""}
            {"pu = Unsqueeze (ps, one)" if weighted else ""}
            {"rows = Mul (plain, pu)" if weighted else ""}
            r = {reduce} <keepdims = 0> ({weights}, zero)
            d = Cast <to = 9> (yes)
        }}>
    }}""")


MEAN = """
    last = Equal (i, three)
    e = If (last) <
        then_branch = t () => (float[1, 16] m) {
            sum = ReduceSum (rows, zero)
            many = Sub (count, start)
            some = Greater (many, zero_0)
            m = If (some) <
                then_branch = u () => (float[1, 16] q) {
                    f = Cast <to = 1> (many)
                    q = Div (sum, f)
                },
                else_branch = v () => (float[1, 16] s) { s = Identity (sum) }
            >
        },
        else_branch = z () => (float[1, 16] n) { n = ReduceMean (rows, zero) }
    >"""
MAX = """
    last = Equal (i, three)
    part = If (last) <
        then_branch = t () => (float[k, 16] m) { m = Slice (data, start, count) },
        else_branch = z () => (float[l, 16] n) { n = Slice (data, start, end) }
    >
    e = ReduceMax (part, zero)"""
SUM = "e = ReduceSum (rows, zero)"


def listed(reduce: str) -> Any:
    """As torch's newer exporter writes it: a sequence of rows, which grows each turn."""
    inner = {"ReduceSum": SUM, "ReduceMean": MEAN, "ReduceMax": MAX}[reduce]
    return _parsed(f"""
    <ir_version: 8, opset_import: ["": 18]>
    g (int64[20] x, int64[4] o) => (float[4, 16] y)
    <int64[1] zero = {{0}}, int64[1] minus = {{-1}}, int64 first = {{0}}, int64 one = {{1}},
     int64 two = {{2}}, int64 three = {{3}}, int64 four = {{4}}, int64 zero_0 = {{0}},
     int64[2] wide = {{1, 16}}, float null = {{0}}, bool yes = {{1}}, int64[1] count = {{20}}> {{
        data = Gather <axis = 0> (w, x)
        all = Concat <axis = 0> (o, count)
        blank = Expand (null, wide)
        empty = SequenceEmpty ()
        rows_of_all, last_place = Loop (, yes, empty, first) <
          body = b (int64 turn, bool c, seq(float[1, 16]) grown, int64 i)
            => (bool d, seq(float[1, 16]) more_grown, int64 j) {{
            at = Reshape (i, minus)
            k1 = CastLike (one, at)
            after = Add (at, k1)
            start = Slice (all, at, after)
            k2 = CastLike (two, at)
            behind = Add (at, k2)
            end = Slice (all, after, behind)
            same = Equal (start, end)
            row = If (same) <
                then_branch = tb () => (float[1, 16] nothing) {{ nothing = Identity (blank) }},
                else_branch = eb () => (float[1, 16] e) {{
                    rows = Slice (data, start, end)
                    {inner}
                }}
            >
            more_grown = SequenceInsert (grown, row)
            j = Add (i, one)
            d = Less (j, four)
        }}>
        y = ConcatFromSequence <axis = 0> (rows_of_all)
    }}""")


def _feed(offsets: list[int]) -> dict[str, Any]:
    places = np.random.default_rng(4).integers(0, ROWS, PLACES)
    return {"x": places, "o": np.array(offsets, np.int64)}


@pytest.mark.parametrize("reduce", REDUCED)
@pytest.mark.parametrize("written", [scanned, listed])
def test_bags_are_compiled(written: Callable[[str], Any], reduce: str) -> None:
    model = onnx_model.load(written(reduce), {}, fallback=True)
    assert not model.regions
    for offsets in OFFSETS:
        check(model, _feed(offsets))


def test_rows_may_have_weights() -> None:
    model = onnx_model.load(scanned("ReduceSum", weighted=True), {}, fallback=True)
    assert not model.regions
    weights = np.random.default_rng(5).standard_normal(PLACES).astype(np.float32)
    check(model, {**_feed(OFFSETS[0]), "p": weights})


def test_a_nan_is_the_maximum_of_its_run_alone() -> None:
    """ONNX Runtime loses those that do not come first."""
    proto = scanned("ReduceMax")
    table = onnx.numpy_helper.to_array(proto.graph.initializer[-1]).copy()
    table[5:9, 3], table[2, 4] = np.nan, -np.inf
    proto.graph.initializer[-1].CopyFrom(onnx.numpy_helper.from_array(table, "w"))
    model = onnx_model.load(proto, {})
    (got,) = evaluate(model.module, [np.arange(PLACES), np.array([0, 4, 8, 11])])
    wanted = [table[a:b].max(0) for a, b in ((0, 4), (4, 8), (8, 11), (11, PLACES))]
    np.testing.assert_array_equal(got, np.stack(wanted))
