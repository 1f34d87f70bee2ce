"""A network as a file that other runtimes run, without this library: pixels in, labels out."""

from fullyconv.exports._batches import Batches
from fullyconv.exports._comparison import Comparison
from fullyconv.exports._export import FORMATS, Export, export
from fullyconv.exports._format import Format

__all__ = [
    "FORMATS",
    "Batches",
    "Comparison",
    "Export",
    "Format",
    "export",
]
