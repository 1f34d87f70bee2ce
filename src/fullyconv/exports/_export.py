"""From a network to a file that other runtimes run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fullyconv import __version__
from fullyconv.engines import INPUT, OUTPUT, Answer, DeployedGraph
from fullyconv.errors import ConfigError, MachineError
from fullyconv.exports import _bioimageio, _executorch, _onnx, _openvino, _torch
from fullyconv.exports._batches import Batches, Size
from fullyconv.exports._comparison import Comparison, compare
from fullyconv.exports._format import Format
from fullyconv.exports._staging import staged
from fullyconv.models import SegmentationModel, load

_ANSWERS = {
    "labels": ("NHW", "the class of each pixel"),
    "probabilities": ("NHWC", "of each class at each pixel, 0 to 1"),
    "scores": ("NCHW", "of each class at each pixel, before softmax"),
}


@dataclass(frozen=True)
class Export:
    """What `export` wrote, and how it compares with the library's own answers.

    Parameters
    ----------
    path
        The file; a companion of OpenVINO's lies beside it.
    format
        A key of `FORMATS`.
    metadata
        What the file says of itself; docs/how-to/export.md describes it.
    comparisons
        One for each batch that the file was tried on.
    """

    path: Path
    format: str
    metadata: dict[str, Any]
    comparisons: tuple[Comparison, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {"file": str(self.path), "format": self.format, **self.metadata}

    def __str__(self) -> str:
        takes = self.metadata["input"]
        height, width = takes["height"], takes["width"]
        if isinstance(height, dict):
            sizes = f"height {_range(height)}, width {_range(width)}"
        else:
            sizes = f"{height}×{width} pixels"
        batch = takes["batch"]
        count = f"up to {batch['most']}" if isinstance(batch, dict) else batch
        lines = [
            f"{self.format}: {self.path}",
            f"input: batch {count}, {sizes}, {takes['channels']} channels, {takes['dtype']}",
            f"answer: {self.metadata['output']['answer']}",
            "compared with the library:",
        ]
        return "\n".join(lines + [f"  {comparison}" for comparison in self.comparisons])


def _range(axis: dict[str, int]) -> str:
    steps = f" in steps of {axis['step']}" if axis["step"] > 1 else ""
    return f"from {axis['least']}{steps}" + (f" to {axis['most']}" if "most" in axis else "")


def export(
    model: SegmentationModel | str | Path,
    path: str | Path,
    *,
    to: str | None = None,
    answer: Answer = "labels",
    size: Size | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a network as a file that another runtime runs, and compare the file with the library.

    The file takes raw pixels: normalisation and arg-max are in it, and so are class names and what was
    compared, as metadata. It is run before it appears, on batches of several sizes.

    Parameters
    ----------
    model
        A network, which is left as it is, or a model file.
    path
        The file to write; its folder must exist.
    to
        A key of `FORMATS`; by the path's suffix when None.
    answer
        "labels", N×H×W; "probabilities", N×H×W×K; "scores", N×K×H×W before softmax. H and W are the images'
        less twice the network's margin.
    size
        (height, width) of all images; None for any from `fullyconv.engines.least_side` on, of ExecuTorch up
        to 512 pixels, or twice the least if that is more.
    overwrite
        Replace a file that exists.

    Returns
    -------
    Export
        With the comparisons.

    Raises
    ------
    ConfigError
        The format cannot hold the network so, or what it holds answers something else.
    MachineError
        A package of the format is not installed.
    InputError
        The file exists, or its folder does not.

    Examples
    --------
    >>> import tempfile
    >>> from fullyconv.models import UNet
    >>> network = UNet(2, widths=(4, 8)).eval()
    >>> made = export(network, Path(tempfile.mkdtemp()) / "m.pt2", size=(16, 16))
    >>> [comparison.differing for comparison in made.comparisons]
    [0, 0, 0]
    """
    path = Path(path)
    name, form = _format_of(path, to)
    _require_packages(name, form)
    if answer not in _ANSWERS:
        raise ConfigError(f"answer {answer!r}", f"one of {', '.join(_ANSWERS)}", "take 'labels'")
    network = model if isinstance(model, SegmentationModel) else load(model)
    size = _fitting(network, size)
    batches = Batches(network, size, form.bounded, form.dtypes)
    graph = DeployedGraph.copied(network, answer)
    with staged(path, form.companions, overwrite=overwrite) as written:
        comparisons, metadata = _write(graph, name, form, batches, written)
    return Export(path, name, metadata, comparisons)


def _write(
    graph: DeployedGraph, name: str, form: Format, batches: Batches, path: Path
) -> tuple[tuple[Comparison, ...], dict[str, Any]]:
    """Convert, write and compare; then write again, with what was compared."""
    try:
        write = form.convert(graph, batches)
        write(path, json.dumps(_metadata(graph, form, batches, ())))
        run, _ = form.open(path)
        comparisons = tuple(compare(run, graph, batch) for batch in batches.samples())
        if wrong := next((each for each in comparisons if not each.agrees), None):
            raise ConfigError(f"an exported network that is not equal to its own ({wrong})", "equal ones", "")
        metadata = _metadata(graph, form, batches, comparisons)
        write(path, json.dumps(metadata))
        if form.open(path)[1] != json.dumps(metadata):
            raise ConfigError("metadata that does not come back", "what was written", "")
    except MachineError:
        raise
    except Exception as error:  # converters raise what they like
        raise _refusal(graph, name, batches, error) from error
    return comparisons, metadata


def _format_of(path: Path, to: str | None) -> tuple[str, Format]:
    suffixes = {form.suffix: name for name, form in FORMATS.items()}
    name = suffixes.get(path.suffix) if to is None else to
    if name not in FORMATS:
        raise ConfigError(
            f"format {to!r}" if to else f"{path}, whose suffix is that of no format",
            f"one of {', '.join(FORMATS)}",
            f"name a file with one of the suffixes {', '.join(suffixes)}",
        )
    form = FORMATS[name]
    if path.suffix != form.suffix:
        raise ConfigError(
            f"{path} for {name}", f"the suffix {form.suffix}", f"take {path.with_suffix(form.suffix)}"
        )
    return name, form


def _require_packages(name: str, form: Format) -> None:
    if missing := [package for package in form.packages if find_spec(package) is None]:
        raise MachineError(f"no {', '.join(missing)}", f"the parts that {name} takes", form.install)


def _fitting(model: SegmentationModel, size: Size | None) -> Size | None:
    if size is None:
        return None
    height, width = size
    if min(size) < 1:
        raise ConfigError(f"size {height}×{width}", "pixels from 1 on", "such as --size 512 512")
    margin = 2 * model.margin
    fit = model.valid_input_size((max(1, height - margin), max(1, width - margin)))
    if fit != (height, width):
        raise ConfigError(
            f"size {height}×{width} for an unpadded network",
            f"a size that it takes, such as {fit[0]}×{fit[1]}",
            f"--size {fit[0]} {fit[1]}",
        )
    return height, width


def _refusal(graph: DeployedGraph, name: str, batches: Batches, error: Exception) -> ConfigError:
    said = error.given if isinstance(error, ConfigError) else str(error)
    first = next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)
    free = batches.size is None
    others = ", ".join(other for other in FORMATS if other != name)
    return ConfigError(
        f"{_named(graph.model)} for images of {'any size' if free else '×'.join(map(str, batches.least))}, "
        f"which {name} cannot hold ({first:.300})",
        "a network and sizes that it can",
        f"give all images one size, such as --size 512 512, or take {others}" if free else f"take {others}",
    )


def _named(model: SegmentationModel) -> str:
    """Return what a network is, for a message: its class, and the encoder or classifier in it."""
    try:
        options = model.architecture.options()
    except ConfigError:  # built of the user's own modules
        options = {}
    inner = next((options[key] for key in ("encoder", "backbone", "name") if options.get(key)), None)
    return type(model).__name__ + (f" with {inner}" if inner else "")


def _metadata(
    graph: DeployedGraph, form: Format, batches: Batches, comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """Return what a file says of itself, as JSON-ready values."""
    model = graph.model
    axes, meaning = _ANSWERS[graph.answer]
    label_type = str(graph.label_type).removeprefix("torch.")
    return {
        "version": 1,
        "library": f"fullyconv {__version__}",
        "classes": list(model.classes.names),
        "colors": [list(color) for color in model.classes.colors],
        "ignore_index": model.classes.ignore_index,
        "normalization": {"mean": list(model.normalization.mean), "std": list(model.normalization.std)},
        "input": {"name": INPUT, **batches.to_dict()},
        "output": {
            "name": OUTPUT,
            "answer": graph.answer,
            "axes": axes,
            "meaning": meaning,
            "dtype": label_type if graph.answer == "labels" else "float32",
            "margin": model.margin,
        },
        "made_with": {package: version(package) for package in ("torch", *form.packages)},
        "comparisons": [comparison.to_dict() for comparison in comparisons],
    }


# Name -> the format; what each module's two functions do is described in `Format`.
FORMATS: dict[str, Format] = {
    "onnx": Format(
        ".onnx",
        ("onnx", "onnxscript", "onnxruntime"),
        "pip install 'fullyconv[onnx]'",
        _onnx.convert,
        _onnx.open_exported,
    ),
    "openvino": Format(
        ".xml",
        ("openvino",),
        "pip install openvino",
        _openvino.convert,
        _openvino.open_exported,
        companions=(".bin",),
    ),
    "torch-export": Format(".pt2", ("torch",), "pip install torch", _torch.convert, _torch.open_exported),
    "bioimageio": Format(
        ".zip",
        ("onnx", "onnxscript", "onnxruntime"),
        "pip install 'fullyconv[onnx]'",
        _bioimageio.convert,
        _bioimageio.open_exported,
    ),
    "executorch": Format(
        ".pte",
        ("executorch",),
        "pip install 'fullyconv[executorch]'",
        _executorch.convert,
        _executorch.open_exported,
        bounded=True,
        dtypes=("uint8", "int8", "int16", "int32", "float32"),
    ),
}
