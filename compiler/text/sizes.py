"""What a size of a shape looks like, in words."""

import re

_PRODUCT = re.compile(r"(?:(\d+)\*[A-Za-z_]\w*|[A-Za-z_]\w*\*(\d+))$")


def expected_size(text: str) -> str:
    """What a text should have been that is no size; of a product, how a multiple is written."""
    if (product := _PRODUCT.match(text)) is not None:
        factor = product[1] or product[2]
        return (
            f"of other sizes it may be a sum, no product; ?%{factor} is an open size that is a"
            f" multiple of {factor}"
        )
    return (
        "expected 3 (fixed), ? or a name (open), past+length (a sum of others), 1..64 or"
        " name:1..64 (open within bounds), each perhaps with %4 (multiples of 4 only), and with"
        " @8, the size to measure at"
    )
