"""Kernels of many kinds and awkward shapes; each entry names one and builds it for a target."""

from corpus_lowered import LOWERED_KERNELS
from corpus_narrow import NARROW
from corpus_products import PRODUCTS
from corpus_rows import ROWS
from kernel_builders import Builder

from hybridc.compiler.kernels import recurrence


def _recurrent(layer: str, *sizes: int, reverse: bool = False) -> Builder:
    return lambda _: [recurrence.kernel(layer, *sizes, reverse=reverse)]


RECURRENT: list[tuple[str, Builder]] = [
    ("recurrent network, odd", _recurrent("RNN", 3, 2, 7)),
    ("gated recurrent units, reversed", _recurrent("GRU", 4, 1, 20, reverse=True)),
    ("long short-term memory", _recurrent("LSTM", 3, 2, 33)),
]
KERNELS: list[tuple[str, Builder]] = [*ROWS, *PRODUCTS, *NARROW, *LOWERED_KERNELS, *RECURRENT]
