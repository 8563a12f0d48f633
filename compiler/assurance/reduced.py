"""The accuracy that is required of a model in a precision below its own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

# How many products in a row the limits below allow for.
_IN_A_ROW = 50


@dataclass(frozen=True)
class Reduced:
    """How far an answer in less precision may be off.

    An error may be `share` of the output's largest element, whatever the element; the direction
    of the output as a vector is kept to a `cosine`.  Where more products were lowered than the
    limits allow for, an error may be up to `growth` times as large.
    """

    share: float
    cosine: float
    growth: float = 1.0

    def after(self, products: int) -> "Reduced":
        """The limits after so many products, whose errors are independent."""
        times = min(max(1.0, math.sqrt(products / _IN_A_ROW)), self.growth)
        return Reduced(self.share * times, 1 - (1 - self.cosine) * times**2)

    def beside(self, other: "Reduced") -> "Reduced":
        """The limits where two independent errors meet.

        Of a small angle, 1 - cosine is half the square, and squares of such errors add up.
        """
        return Reduced(math.hypot(self.share, other.share), self.cosine + other.cosine - 1)


# By precision.  bf16 rounds each operand by up to 2^-9; over tens of layers that adds up to about
# 1 % of the largest output, cosine 0.9999 (ResNet-50, BERT).
# A quantised model is compared with its own quantised reference.  Where the two round a tie
# differently one step differs, and so do the steps of the layers behind it: ONNX Runtime with its
# optimisations is up to 9 % of the largest output away from itself without (BERT, cosine 0.998).
# fp16 rounds by up to 2^-12, an eighth of bf16: so is its share, and of 1 - cosine an 8^2-th.
# tf32 has as many bits.
# Weights in steps of s are wrong by s / sqrt(12) on average.  Where they are spread normally, the
# largest of 128 is 2.7 deviations, of 32 it is 2.1: 127 levels make that 0.6 % of a product, 7
# levels 8.7 %.  Errors of layers are independent; of n products in a row sqrt(n) times as much
# arrives, or less where residuals pass them by.  For 50 that is 4 % and 60 %; allowed is a cosine
# of 4 % and, since weights of 4 bits are of no use beyond, of 48 %.  A single output of many is up
# to four deviations off, as large outputs are themselves.
# A language model has more products: 7 in each layer, of which branches that multiply two of them
# amplify what arrives, so that residuals pass nothing by (16 layers, 113 products, random weights:
# 6 %).  With 8 bits sqrt(n / 50) times as much is allowed, up to twice.  That still tells a wrong
# branch of n / 3.5: without it the sum of all turns by sqrt(3.5 / n), and further with another in
# its place.  Where the factor ends, at 200 products, that is 13 %, and 9 % are allowed, which is
# what one branch makes of 440.
# Rows of activations in 255 steps from end to end, 8 deviations, are wrong by 0.9 %, and by more
# where some features are much larger than the rest: as int8 with fixed scales.
# With weights in 127 steps that is 1.2 % of a product.  Gated branches are 2.9 % off after 15
# products, 5.5 % after 48, 7.6 % after 114, 10.1 % after 198 and 12.8 % after 240, and products in
# a row 10.8 % after 113.  So the limit grows as that of weights alone, but ends at 13 %, since one
# wrong product of 198 makes 13.6 %, and of 240 14.3 %.  Of few it is far from both: of three, what
# is right is 1.3 % off, and what is wrong 61 %.
REDUCED: Mapping[str, Reduced] = MappingProxyType(
    {
        "bf16": Reduced(share=0.05, cosine=0.999),
        "fp16": Reduced(share=0.05 / 8, cosine=1 - 0.001 / 64),
        "tf32": Reduced(share=0.05 / 8, cosine=1 - 0.001 / 64),
        "int8": Reduced(share=0.15, cosine=0.99),
        "int8-weights": Reduced(share=0.05, cosine=0.999, growth=2.0),
        "int8-dynamic": Reduced(share=0.1, cosine=0.99, growth=1.3),
        "int4-weights": Reduced(share=0.5, cosine=0.9),
    }
)

# What keeps more of a model than each precision that a user asks for.
_FINER: Mapping[str, str] = MappingProxyType(
    {
        "int4-weights": "int8-weights",
        "int8-dynamic": "int8-weights",
        "int8-weights": "bf16",
        "bf16": "fp32",
        "fp16": "fp32",
        "tf32": "fp32",
    }
)


def reduced(precision: str, products: int = 0) -> Reduced | None:
    """What is held of a model in a precision, or a pair of them, to which `products` were lowered.

    None where that is no lower one.
    """
    parts = [REDUCED[part].after(products) for part in precision.split("+") if part in REDUCED]
    if not parts:
        return None
    first, *others = parts
    for other in others:
        first = first.beside(other)
    return first


def finer(precision: str) -> str:
    """What keeps more of a model than a precision, or nothing; of a pair the weights first."""
    activations, _, weights = precision.rpartition("+")
    if not activations:
        return _FINER.get(precision, "")
    nearer = _FINER.get(weights, "")
    return f"{activations}+{nearer}" if nearer.endswith("weights") else activations
