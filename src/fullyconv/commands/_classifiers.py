"""What a trained classifier sees where: heatmaps, and its conversion to a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullyconv.errors import ConfigError

if TYPE_CHECKING:
    from fullyconv.explanation import Heatmaps


@dataclass(frozen=True)
class Looked:
    """What `heatmap` saw, and the files it wrote: the panels, then the raw values."""

    heatmaps: Heatmaps
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the best classes, the sizes and the paths as JSON-ready values."""
        return {**self.heatmaps.to_dict(), "files": [str(path) for path in self.files]}

    def __str__(self) -> str:
        picture, *values = self.files
        return f"{self.heatmaps}\npanels: {picture}\nraw values: {', '.join(map(str, values))}"


def heatmap(
    image: Path,
    *,
    classifier: str,
    out: Path,
    weights: str | None = None,
    classes: str | None = None,
    top: int = 5,
    output_stride: int | None = None,
    shorter_side: int | None = None,
    input_size: int | None = None,
    names: Path | None = None,
    overwrite: bool = False,
) -> Looked:
    """Draw where in an image a classifier sees each class: OUT/heatmaps.png, and the values as .npy.

    Parameters
    ----------
    image
        An image file.
    classifier
        A name of torchvision or timm, such as resnet18 or timm/resnet18, or a file from fullyconv convert.
    out
        The folder to write to.
    weights
        A file of weights (safetensors, or a torch state dict), "none" for random ones; by default the
        library's own.
    classes
        Names of the classes to draw, with commas between; the best ones by default.
    top
        How many of the best.
    output_stride
        Pixels between windows, for finer maps: the classifier's stride divided by 2, 4, 8, …
    shorter_side
        Resize the image to so many pixels on its shorter side (default: twice a window).
    input_size
        Side of the images the classifier was trained on (default: as the library says).
    names
        A text file with the name of one class a line, for your own classifier.
    overwrite
        Replace files that exist.

    Examples
    --------
    fullyconv heatmap cat.jpg --classifier resnet18 --classes "tabby,tiger cat" --out heat
    """
    from fullyconv.classifiers import load_classifier
    from fullyconv.explanation import heatmaps, save_heatmaps

    loaded = load_classifier(classifier, weights=weights, input_size=input_size, class_names=_lines(names))
    result = heatmaps(
        loaded,
        image,
        classes=classes.split(",") if classes else None,
        top=top,
        output_stride=output_stride,
        shorter_side=shorter_side or "auto",
    )
    return Looked(result, save_heatmaps(result, out, overwrite=overwrite))


@dataclass(frozen=True)
class Converted:
    """The model file that `convert` wrote, and what is in it."""

    model: Path
    classifier: str
    classes: int
    input_size: tuple[int, int]
    stride: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "model": str(self.model),
            "classifier": self.classifier,
            "classes": self.classes,
            "input_size": list(self.input_size),
            "stride": self.stride,
        }

    def __str__(self) -> str:
        window = "×".join(map(str, self.input_size))
        return (
            f"{self.classifier}: {self.classes} classes, {window} windows every {self.stride} pixels\n"
            f"model: {self.model}"
        )


def convert(
    classifier: str,
    *,
    out: Path,
    weights: str | None = None,
    input_size: int | None = None,
    output_stride: int | None = None,
    names: Path | None = None,
    overwrite: bool = False,
) -> Converted:
    """Write a classifier as a model that labels every pixel, for predict and heatmap.

    Parameters
    ----------
    classifier
        A name of torchvision or timm, such as resnet18 or timm/resnet18, or a file from fullyconv convert.
    out
        The model file to write, a .safetensors file.
    weights
        A file of weights (safetensors, or a torch state dict), "none" for random ones; by default the
        library's own.
    input_size
        Side of the images the classifier was trained on (default: as the library says).
    output_stride
        Pixels between windows, for finer labels: the classifier's stride divided by 2, 4, 8, …
    names
        A text file with the name of one class a line, for your own classifier.
    overwrite
        Replace a file that exists.

    Examples
    --------
    fullyconv convert resnet18 --weights mine.pt --names mine.txt --out mine.safetensors
    """
    from fullyconv.classifiers import load_classifier
    from fullyconv.models import save

    loaded = load_classifier(classifier, weights=weights, input_size=input_size, class_names=_lines(names))
    model = loaded.to_model(output_stride)
    save(model, out, overwrite=overwrite)
    source = f"{loaded.library}/{loaded.name}"
    return Converted(out, source, loaded.classes, loaded.input_size, model.stride)


def _lines(file: Path | None) -> tuple[str, ...] | None:
    """Return the lines of a text file that are not blank."""
    if file is None:
        return None
    try:
        return tuple(line.strip() for line in file.read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read ({error})", "a text file", "check its name") from error
