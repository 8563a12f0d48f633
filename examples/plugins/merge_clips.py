"""Merge clips that follow each other."""

from dataclasses import dataclass
from math import inf

from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Expr, Graph, operator, rewrite


@dataclass(frozen=True)
class MergeClips(Pass):
    """Replace two clips in a row by one; a relu is a clip without an upper end."""

    relu: bool = True

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite until no clip reads a clip."""
        return rewrite(module, self._merge)

    def _merge(self, value: Expr, graph: Graph) -> Expr | None:
        inner = graph.call(value.args[0], "clip", "nn.relu") if operator(value) == "clip" else None
        if inner is None or (operator(inner) == "nn.relu" and not self.relu):
            return None
        low, high = _ends(value)
        # Clipping is monotone, so the inner ends, clipped, are the ends of both together.
        first, last = (min(max(end, low), high) for end in _ends(inner))
        return relax.op.clip(inner.args[0], first, last)


def _ends(call: Expr) -> tuple[float, float]:
    if operator(call) == "nn.relu":
        return 0.0, inf
    return call.args[1].value, call.args[2].value
