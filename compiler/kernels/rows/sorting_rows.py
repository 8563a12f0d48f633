"""The statements that sort one row; `sorting` says when and why."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as script

from hybridc.compiler.target import Target

Expr = Any  # tvm.ir.Expr

TYPES = ("float32", "int32", "int16", "int8", "uint8", "uint16")
# Elements up to which comparing each with each costs less than four passes by bytes.
_RANKED = 64
# Elements that are kept sorted by insertion, which exchanges each of them with what comes in.
_KEPT = 32
# Elements that are looked at together.
_BLOCK = 32
# Elements that are collected besides those kept, before the best are sorted out.
_COLLECTED = 512
_LARGEST = 2**31 - 1
_DIGITS, _VALUES = 4, 256


def key(value: Expr, largest: bool) -> Expr:
    """An integer of 32 bits that is less, the sooner an element of TYPES comes in order."""
    kind = str(value.ty.dtype)
    order = _of_float(value) if kind == "float32" else tirx.Cast("int32", value)
    return tirx.bitwise_not(order) if largest else order


def _of_float(value: Expr) -> Expr:
    """The bits of a number, those of a negative one turned round; both zeros are 0."""
    bits = tirx.reinterpret("int32", value)
    sign = tirx.shift_right(bits, _int(31))
    turned = tirx.bitwise_xor(bits, tirx.bitwise_and(sign, _int(_LARGEST)))
    number = tirx.Select(tirx.EQ(turned, _int(-1)), _int(0), turned)
    return tirx.Select(tirx.LE(value, value), number, _int(_LARGEST))


@dataclass(frozen=True)
class Row:
    """Writes the statements that find the first `wanted` of `length` elements in order.

    `key` gives an element's key by its place, `write(rank, place)` stores it in the result.
    """

    length: int
    wanted: int
    key: Callable[[Expr], Expr]
    write: Callable[[Expr, Expr], None]
    target: Target

    def sort(self) -> None:
        """In the way that suits the sizes."""
        if self.length <= _RANKED:
            self._by_ranks()
        elif self.wanted <= _KEPT:
            self._by_insertion()
        else:
            self._by_bytes()

    def _pair(self, key: Expr, place: Expr) -> Expr:
        """A key and a place as one number; no two are equal."""
        return tirx.shift_left(tirx.Cast("int64", key), _long(32)) + tirx.Cast("int64", place)

    def _by_ranks(self) -> None:
        lanes = self.target.lanes("int64")
        vectors = -(-self.length // lanes)
        pairs, places = _array(vectors * lanes, "int64"), _array(self.length, "int32")
        before, rank = _array(lanes, "int64"), _array(1, "int64")
        _vectors(
            self.length,
            self.target.lanes("int32"),
            lambda i: _put(pairs, i, self._pair(self.key(i), i)),
        )
        for i in range(self.length, vectors * lanes):
            pairs[_long(i)] = tirx.max_value("int64")
        with script.serial(0, self.length) as i:
            with script.vectorized(0, lanes) as lane:
                before[lane] = _long(0)
            with script.unroll(0, vectors) as v, script.vectorized(0, lanes) as lane:
                less = tirx.LT(pairs[v * lanes + lane], pairs[i])
                before[lane] = before[lane] + tirx.Cast("int64", less)
            rank[_long(0)] = _long(0)
            with script.unroll(0, lanes) as lane:
                rank[_long(0)] = rank[_long(0)] + before[lane]
            if self.wanted == self.length:
                self.write(rank[_long(0)], i)
            else:  # a branch on the rank would be foreseen as often as not
                places[rank[_long(0)]] = tirx.Cast("int32", i)
        if self.wanted < self.length:
            with script.serial(0, self.wanted) as i:
                self.write(i, tirx.Cast("int64", places[i]))

    def _by_insertion(self) -> None:
        best, new = _array(self.wanted, "int64"), _array(1, "int64")
        zero, last = _long(0), _long(self.wanted - 1)
        with script.serial(0, self.wanted) as i:
            best[i] = tirx.max_value("int64")

        def offer(key: Expr, place: Expr) -> None:
            new[zero] = self._pair(key, place)
            with (
                script.If(new[zero] < best[last]),
                script.Then(),
                script.serial(0, self.wanted) as i,
            ):
                kept = script.Bind(tirx.min(best[i], new[zero]))
                moved = script.Bind(tirx.max(best[i], new[zero]))
                best[i] = kept
                new[zero] = moved

        def skips(least: Expr) -> Expr:
            return self._pair(least, zero) < best[last]

        self._blocks(0, skips, offer)
        with script.serial(0, self.wanted) as i:
            self.write(i, tirx.bitwise_and(best[i], _long(2**32 - 1)))

    def _blocks(
        self,
        start: int,
        worth: Callable[[Expr], Expr],
        offer: Callable[[Expr, Expr], None],
        ahead: Callable[[], None] = lambda: None,
    ) -> None:
        """Offer elements from `start` on, of those blocks whose least key is `worth` a look."""
        block = _array(_BLOCK, "int32")
        whole, rest = divmod(self.length - start, _BLOCK)
        with script.serial(0, whole) as b:
            first = start + b * _BLOCK
            with script.vectorized(0, _BLOCK) as lane:
                block[lane] = self.key(first + lane)
            keys = block[tirx.Ramp(_long(0), _long(1), _BLOCK)]
            least = tirx.call_llvm_pure_intrin("int32", "llvm.vector.reduce.smin", keys)
            with script.If(worth(least)), script.Then():
                ahead()
                with script.serial(0, _BLOCK) as i:
                    offer(block[i], first + i)
        if rest:
            ahead()
            with script.serial(0, rest) as i:
                place = self.length - rest + i
                offer(self.key(place), place)

    def _by_bytes(self) -> None:
        held = min(self.length, self.wanted + _COLLECTED)
        size = held + (_BLOCK if held < self.length else 0)
        keys = [_array(size, "int32") for _ in range(2)]
        places = [_array(size, "int32") for _ in range(2)]
        counts, count = _array(_DIGITS * _VALUES, "int32"), _array(1, "int64")
        zero = _long(0)

        def put(i: Expr) -> None:
            keys[0][i] = self.key(i)
            places[0][i] = tirx.Cast("int32", i)

        _vectors(held, self.target.lanes("int32"), put)
        count[zero] = _long(held)
        _sort_by_bytes(keys, places, counts, count[zero])
        if held < self.length:
            count[zero] = _long(self.wanted)
            worst = _array(1, "int32")
            worst[zero] = keys[0][_long(self.wanted - 1)]

            def offer(key: Expr, place: Expr) -> None:
                keys[0][count[zero]] = key
                places[0][count[zero]] = tirx.Cast("int32", place)
                count[zero] = count[zero] + tirx.Cast("int64", tirx.LT(key, worst[zero]))

            def make_room() -> None:
                with script.If(count[zero] > held), script.Then():
                    _sort_by_bytes(keys, places, counts, count[zero])
                    count[zero] = _long(self.wanted)
                    worst[zero] = keys[0][_long(self.wanted - 1)]

            self._blocks(held, lambda least: least < worst[zero], offer, make_room)
            _sort_by_bytes(keys, places, counts, count[zero])
        with script.serial(0, self.wanted) as i:
            self.write(i, tirx.Cast("int64", places[0][i]))


def _sort_by_bytes(keys: list[Any], places: list[Any], counts: Any, count: Expr) -> None:
    """Sort pairs by their keys in four passes, each of which leaves equal bytes in order."""
    with script.vectorized(0, _DIGITS * _VALUES) as i:
        counts[i] = _int(0)
    with script.serial(0, count) as i:
        for digit in range(_DIGITS):
            at = _digit(keys[0][i], digit)
            counts[at] = counts[at] + 1
    for digit in range(_DIGITS):
        total = _array(1, "int32")
        total[_long(0)] = _int(0)
        with script.serial(0, _VALUES) as v:
            own = script.Bind(counts[v + digit * _VALUES])
            counts[v + digit * _VALUES] = total[_long(0)]
            total[_long(0)] = total[_long(0)] + own
        source, to = digit % 2, 1 - digit % 2
        with script.serial(0, count) as i:
            at = script.Bind(_digit(keys[source][i], digit))
            here = script.Bind(tirx.Cast("int64", counts[at]))
            keys[to][here] = keys[source][i]
            places[to][here] = places[source][i]
            counts[at] = counts[at] + 1


def _digit(key: Expr, digit: int) -> Expr:
    """Where the count of a key's byte is; the highest has the sign turned."""
    value = tirx.bitwise_and(tirx.shift_right(key, _int(8 * digit)), _int(_VALUES - 1))
    if digit == _DIGITS - 1:
        value = tirx.bitwise_xor(value, _int(_VALUES // 2))
    return tirx.Cast("int64", value) + digit * _VALUES


def _vectors(count: int, lanes: int, body: Callable[[Expr], None]) -> None:
    """Do something for each of some neighbours."""
    whole, rest = divmod(count, lanes)
    if whole:
        with script.serial(0, whole) as v, script.vectorized(0, lanes) as lane:
            body(v * lanes + lane)
    if rest:
        with script.serial(0, rest) as i:
            body(whole * lanes + i)


def _array(size: int, dtype: str) -> Any:
    return script.buffer_proxy(script.alloc_buffer((size,), dtype))


def _put(array: Any, i: Expr, value: Expr) -> None:
    array[i] = value


def _int(value: int) -> Expr:
    return tirx.const(value, "int32")


def _long(value: int) -> Expr:
    return tirx.const(value, "int64")
