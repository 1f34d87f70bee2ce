"""A classifier as a fully convolutional network, and the proof: tracing, lifting, dilation, matrices."""

from fullyconv.surgery.dense import DenseClassifier, convolutionalize
from fullyconv.surgery.dilation import dilate, shift_and_stitch
from fullyconv.surgery.linear import conv_to_linear, linear_to_conv
from fullyconv.surgery.matrices import conv_matrix, conv_transpose_matrix
from fullyconv.surgery.transplants import transplant
from fullyconv.surgery.windows import WindowsReport, compare_with_windows

__all__ = [
    "DenseClassifier",
    "WindowsReport",
    "compare_with_windows",
    "conv_matrix",
    "conv_to_linear",
    "conv_transpose_matrix",
    "convolutionalize",
    "dilate",
    "linear_to_conv",
    "shift_and_stitch",
    "transplant",
]
