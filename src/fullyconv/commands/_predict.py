"""From a model and images to masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fullyconv.errors import ConfigError, DataError
from fullyconv.progress import Lines, Progress

if TYPE_CHECKING:
    from fullyconv.inference import Estimate, Outputs, Verification
    from fullyconv.labels import ClassTable


@dataclass(frozen=True)
class Predicted:
    """The files that `predict` wrote.

    Parameters
    ----------
    files
        Kind ("masks", "overlays", ...) -> one file per image.
    approximate
        Why some predictions are not those of the whole image; empty where all are.
    """

    files: dict[str, tuple[Path, ...]]
    approximate: tuple[str, ...] = ()

    @property
    def masks(self) -> tuple[Path, ...]:
        """One index mask per image, of the image's height and width."""
        return self.files["masks"]

    def to_dict(self) -> dict[str, Any]:
        """Return the paths as JSON-ready text."""
        paths: dict[str, Any] = {kind: [str(path) for path in found] for kind, found in self.files.items()}
        return {**paths, "exact": not self.approximate, "approximate": list(self.approximate)}

    def __str__(self) -> str:
        lines = [
            f"{kind}: {found[0]}" if len(found) == 1 else f"{len(found)} {kind}: {found[0].parent}"
            for kind, found in self.files.items()
        ]
        return "\n".join(lines + [f"approximate: {reason}" for reason in self.approximate])


def predict(
    model: Path,
    *images: Path,
    out: Path = Path("predictions"),
    flips: Literal["none", "horizontal", "both"] = "none",
    format: Literal["auto", "png", "tiff", "zarr", "geotiff"] = "auto",
    overlays: bool = True,
    probabilities: Literal["float16", "uint8"] | None = None,
    classes: tuple[str, ...] = (),
    polygons: bool = False,
    objects: bool = False,
    engine: Literal["auto", "openvino", "torch", "onnx"] = "auto",
    precision: Literal["auto", "f32", "bf16", "int8"] = "auto",
    tile: int | None = None,
    max_memory: str | None = None,
    threads: int | None = None,
    cluster: str | None = None,
    overwrite: bool = False,
    restart: bool = False,
    dry_run: bool = False,
    verify: bool = False,
    progress: Progress | None = None,
) -> Predicted | Estimate | Verification:
    """Predict a mask and an overlay for every image: OUT/masks/NAME.png and OUT/overlays/NAME.png.

    Images may have any size: large ones are read, computed and written tile by tile. The same command again
    goes on where one was stopped.

    Parameters
    ----------
    model
        A model file, the folder of train --folds, whose networks are averaged, or the name of a model that
        comes with the package: nuclei.
    images
        Image files, folders and globs; a Zarr folder is one image.
    out
        The folder to write to (default: predictions).
    flips
        Average over mirror images too: left to right, or both ways, which takes two or four times as long.
    format
        Of the masks: png, tiff (tiled BigTIFF), zarr (OME-Zarr with a pyramid) or geotiff; auto takes GeoTIFF
        where the image has a georeference, and TIFF for images over 67 megapixels.
    overlays
        Write the images with their classes painted over them; large ones smaller.
    probabilities
        Also write the probability of each class to OUT/probabilities, as 0 to 1 or as 0 to 255.
    classes
        Names of the classes whose probabilities to write (default: all).
    polygons
        Also write outlines to OUT/polygons as GeoJSON, which QuPath and QGIS open.
    objects
        Also write each connected region to OUT/objects as COCO JSON with run lengths.
    engine
        What computes; auto takes torch on a GPU, else OpenVINO.
    precision
        What to compute in; auto takes bf16 where it is native and agrees with f32 on 99.9 % of the labels.
    tile
        The most pixels of a tile along each axis (default: chosen by memory and time).
    max_memory
        What the process may hold at most, such as 2GB (default: half of what is free).
    threads
        Processors to use (default: all).
    cluster
        Address of a Dask scheduler, such as tcp://10.0.0.1:8786, whose workers compute; they share all paths.
    overwrite
        Replace files that exist.
    restart
        Begin anew where an earlier command was stopped, in place of going on.
    dry_run
        Say what it would take (tiles, memory, time) and write nothing.
    verify
        Compare tiles with the whole on a crop of the first image, and write nothing.

    Examples
    --------
    fullyconv predict runs/first/model.safetensors new/*.png --out predictions
    fullyconv predict --model nuclei microscopy.png
    """
    from fullyconv.images import find_images, open_image
    from fullyconv.inference import Predictor, estimate_files, predict_files, verify_tiles

    progress = progress or Lines()
    files = find_images(images)
    options: dict[str, Any] = {
        "flips": flips,
        "engine": engine,
        "precision": precision,
        "tile": tile or "auto",
        "max_memory": max_memory,
        "threads": threads,
    }
    if verify:
        with open_image(files[0]) as source:
            return verify_tiles(Predictor(model, progress=progress, **options), source)
    outputs = _outputs(model, format, overlays, probabilities, classes, polygons, objects)
    if dry_run:
        return estimate_files(Predictor(model, progress=progress, **options), files, out, outputs)
    written = predict_files(
        model,
        files,
        out,
        outputs,
        overwrite=overwrite,
        restart=restart,
        cluster=cluster,
        progress=progress,
        **options,
    )
    if written.problems:
        raise DataError(
            f"{len(written.problems)} of {len(files)} images cannot be predicted (the others are written)",
            "images like those the model was trained on",
            "mend or leave out these files",
            written.problems,
        )
    return Predicted(written.by_kind(), written.approximate)


def _outputs(
    model: Path,
    form: Literal["auto", "png", "tiff", "zarr", "geotiff"],
    overlays: bool,
    probabilities: Literal["float16", "uint8"] | None,
    classes: tuple[str, ...],
    polygons: bool,
    objects: bool,
) -> Outputs:
    from fullyconv.inference import Outputs, Shares
    from fullyconv.models import model_files, read_header

    if classes and probabilities is None:
        raise ConfigError("--classes without --probabilities", "both", "add --probabilities float16")
    shares = None
    if probabilities is not None:
        shares = Shares(_indices(read_header(model_files(model)[0]).class_table, classes), probabilities)
    return Outputs(form, overlays, shares, polygons, objects)


def _indices(table: ClassTable, names: tuple[str, ...]) -> tuple[int, ...]:
    unknown = sorted(set(names) - set(table.names))
    if unknown:
        raise ConfigError(
            f"classes {', '.join(unknown)}", f"some of {', '.join(table.names)}", "name classes of the model"
        )
    return tuple(map(table.names.index, names)) if names else tuple(range(len(table)))
