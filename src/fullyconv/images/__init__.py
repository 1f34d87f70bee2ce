"""Image and mask files: read, check, convert, write.

Images are H×W×C arrays in the dtype of the file, masks are H×W integers, sizes are (height, width). The
decoder is chosen by a file's content, never by its name. Nothing is rescaled, dropped or guessed silently:
what cannot be read faithfully is refused with an :class:`~fullyconv.errors.ImageError` that names the file.
"""

from fullyconv.images._atomic import atomic_file, make_folder
from fullyconv.images._channels import conform
from fullyconv.images._find import find_images
from fullyconv.images._formats import IMAGE_SUFFIXES
from fullyconv.images._georeference import Georeference
from fullyconv.images._output import OutputWriter, open_output
from fullyconv.images._overlay import overlay
from fullyconv.images._read import ImageInfo, Mask, probe, read_image, read_mask
from fullyconv.images._source import ImageSource, open_image
from fullyconv.images._stored import MAX_PIXELS
from fullyconv.images._tensors import from_tensor, to_tensor
from fullyconv.images._write import write_image, write_labels

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Georeference",
    "ImageInfo",
    "ImageSource",
    "Mask",
    "OutputWriter",
    "atomic_file",
    "conform",
    "find_images",
    "from_tensor",
    "make_folder",
    "open_image",
    "open_output",
    "overlay",
    "probe",
    "read_image",
    "read_mask",
    "to_tensor",
    "write_image",
    "write_labels",
]
