"""Kernels of many kinds and awkward shapes; each entry names one and builds it for a target."""

from corpus_lowered import LOWERED_KERNELS
from corpus_narrow import NARROW
from corpus_products import PRODUCTS
from corpus_rows import ROWS
from kernel_builders import Builder

KERNELS: list[tuple[str, Builder]] = [*ROWS, *PRODUCTS, *NARROW, *LOWERED_KERNELS]
