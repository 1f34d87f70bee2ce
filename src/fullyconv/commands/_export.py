"""From a model to a file that other runtimes run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fullyconv.exports import Export


def export(
    model: Path,
    *,
    out: Path,
    to: Literal["onnx", "openvino", "torch-export", "executorch", "bioimageio"] | None = None,
    answer: Literal["labels", "probabilities", "scores"] = "labels",
    size: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a model as a file that another runtime runs without fullyconv: raw pixels in, labels out.

    Normalisation and arg-max are in the file, class names in its metadata. The file is compared with the
    library at several sizes before it appears.

    Parameters
    ----------
    model
        A model file.
    out
        The file to write: .onnx, .xml (OpenVINO, with a .bin beside it), .pt2 (torch.export), .pte
        (ExecuTorch) or .zip (a package of bioimage.io).
    to
        The format (default: by the suffix of OUT).
    answer
        What the file answers for each pixel.
    size
        Height and width of all images in pixels (default: any; of ExecuTorch up to 512).
    overwrite
        Replace a file that exists.

    Examples
    --------
    fullyconv export runs/first/model.safetensors --to onnx --out model.onnx
    """
    from fullyconv import exports

    return exports.export(model, out, to=to, answer=answer, size=size, overwrite=overwrite)
