"""Maxima and minima in a kernel's source: NaN where an operand is, and infinite of infinities.

CUDA's own lose a NaN, and TVM starts them at the largest finite numbers.  No pass can change that
before, since TVM knows reductions across threads by just these.
"""

import re

_CALLS = re.compile(r"\b(max|min)\(")
# An array's element that gets the least number of its type, or the largest: of float32, float16,
# bfloat16 and float64.
_STARTS = re.compile(
    r"^( *(\w+)\[.*\] = (?:\w+\()?)(-?)0x1\.(?:fffffep\+127f|ffcp\+15f|fep\+127f|f{13}p\+1023)"
    r"/\*[^*]*\*/(\)?;)$",
    re.MULTILINE,
)
_INFINITY = "__int_as_float(0x7f800000)"


def exact(kernel: str) -> str:
    """The kernel with such maxima and minima.

    Only arrays of its own that gather extremes start at infinity: others may be filled with just
    that number.
    """
    kernel = _CALLS.sub(r"hybridc_\1(", kernel)

    def start(found: re.Match[str]) -> str:
        begin, name, sign, end = found.groups()
        extreme = "max" if sign else "min"
        gathers = f"] = hybridc_{extreme}({name}["
        own = f"__restrict__ {name}" not in kernel
        return f"{begin}{sign}{_INFINITY}{end}" if own and gathers in kernel else found[0]

    return _STARTS.sub(start, kernel)
