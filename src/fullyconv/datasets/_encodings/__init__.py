"""What mask files mean: the codes of pixels, and what they stand for."""

from fullyconv.datasets._encodings._codes import (
    MISPLACED,
    Census,
    Encoding,
    pixel_codes,
    take_census,
)
from fullyconv.datasets._encodings._rules import ENCODINGS, detect_encoding

__all__ = [
    "ENCODINGS",
    "MISPLACED",
    "Census",
    "Encoding",
    "detect_encoding",
    "pixel_codes",
    "take_census",
]
