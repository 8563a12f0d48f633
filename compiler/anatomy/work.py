"""What one operator of a model computes and moves: all that a roofline needs to know of it."""

from dataclasses import dataclass

CONVOLUTION, PRODUCT, ATTENTION = "convolution", "matrix product", "attention"
RECURRENCE, ELEMENTWISE, OTHER = "recurrence", "elementwise", "other"


@dataclass(frozen=True)
class Operator:
    """One call: `flops`, and bytes that it moves.

    `weights` are bytes of constants; `data` are those of activations where element-wise operators
    are fused into what they follow, `alone` where nothing is fused.  `shared` is a number for its
    weights, 0 where it has none; `dynamic` says that it multiplies activations by activations.
    """

    name: str
    kind: str
    flops: float
    weights: float
    data: float
    alone: float
    shared: int = 0
    dynamic: bool = False

    @property
    def product(self) -> bool:
        """Whether it multiplies and adds up: what lower precisions make faster."""
        return self.kind in (CONVOLUTION, PRODUCT, ATTENTION)

    @property
    def moved(self) -> float:
        """Bytes that it moves at least."""
        return self.data + self.weights
