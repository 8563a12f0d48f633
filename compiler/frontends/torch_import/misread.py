"""What TVM's importer of ATen computes wrongly, and how."""

from types import MappingProxyType
from typing import Any

from hybridc.compiler.errors import ModelError

_MISREAD = MappingProxyType(
    {
        "_upsample_bilinear2d_aa": "its anti-aliasing is left out",
        "_upsample_bicubic2d_aa": "its anti-aliasing is left out",
    }
)


def require_readable(exported: Any) -> None:
    """Raise ModelError for an operator that TVM's importer is known to compute wrongly."""
    for node in exported.graph.nodes:
        name = str(node.target).partition(".")[2].partition(".")[0]
        if name in _MISREAD:
            raise ModelError(f"operator {str(node.target)!r} is misread: {_MISREAD[name]}")
