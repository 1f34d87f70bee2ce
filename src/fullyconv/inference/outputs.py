"""What is written of a prediction, and where: masks, overlays, probabilities, polygons and objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, prod, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import ConfigError, MachineError
from fullyconv.images import ImageSource, make_folder, open_output, overlay, write_image
from fullyconv.inference.coco import to_coco, write_coco
from fullyconv.inference.measured import measured
from fullyconv.inference.prediction import Prediction
from fullyconv.inference.qgis import write_mask_style, write_outline_style
from fullyconv.inference.shares import Shares
from fullyconv.inference.store import Store
from fullyconv.labels import ClassTable
from fullyconv.outlines import LabelRows, to_geojson, write_geojson

Form = Literal["auto", "png", "tiff", "zarr", "geotiff"]

_SUFFIXES: dict[Form, str] = {"png": ".png", "tiff": ".tif", "geotiff": ".tif", "zarr": ".zarr"}
_CHUNK = 512
_PART = 16 * _CHUNK  # columns
_PNG_PIXELS = 1 << 26  # viewers open no larger PNG with ease
_OVERLAY_PIXELS = 1 << 24
_OBJECT_PIXELS = 1 << 29  # regions are found in memory


@dataclass(frozen=True)
class Outputs:
    """What to write of each image NAME.

    Parameters
    ----------
    form
        Of masks/NAME: ``"png"`` (indices with the class colours as palette), ``"tiff"`` (tiled and
        compressed), ``"zarr"`` (OME-Zarr with a pyramid), ``"geotiff"``, or ``"auto"``: a GeoTIFF of images
        that have a georeference, a PNG of images up to 67 megapixels, a TIFF of others. Beside a GeoTIFF lies
        its style for QGIS, NAME.qml.
    overlays
        Write overlays/NAME.png, of images over 16 megapixels a smaller one.
    shares
        Write these probabilities to probabilities/NAME.tif, or NAME.zarr where ``form`` is that.
    polygons
        Write polygons/NAME.geojson, in map coordinates and with a style for QGIS where the image has a
        georeference.
    objects
        Write objects/NAME.json in COCO's form.
    """

    form: Form = "auto"
    overlays: bool = True
    shares: Shares | None = None
    polygons: bool = False
    objects: bool = False

    def refuse_existing(self, out: Path, names: Iterable[str]) -> None:
        """Raise `ConfigError` if there is a file in the place of an output of one of the images."""
        folders = [kind for kind in self._kinds() if (out / kind).is_dir()]
        there = {(kind, path.stem): path for kind in folders for path in (out / kind).iterdir()}
        existing = [str(there[kind, name]) for name in names for kind in folders if (kind, name) in there]
        if existing:
            raise ConfigError(
                f"{len(existing)} output files that exist, such as {existing[0]}",
                "none",
                "pass --overwrite, or another --out",
            )

    def paths(self, out: Path, source: ImageSource) -> dict[str, Path]:
        """Return the outputs of an image: kind -> file.

        Raises
        ------
        ConfigError
            A GeoTIFF was asked for of an image without a georeference.
        """
        mask = _SUFFIXES[self._form(source)]
        suffixes = {
            "masks": mask,
            "overlays": ".png",
            "probabilities": ".zarr" if mask == ".zarr" else ".tif",
            "polygons": ".geojson",
            "objects": ".json",
        }
        return {kind: out / kind / f"{source.path.stem}{suffixes[kind]}" for kind in self._kinds()}

    def write(self, out: Path, source: ImageSource, prediction: Prediction) -> None:
        """Write what is wanted of a prediction in memory; files in the way are replaced."""
        shares = None
        if self.shares is not None:
            assert prediction.probabilities is not None  # the predictor was asked for them
            shares = self.shares.kept(prediction.probabilities)
        self._write(out, source, prediction.classes, prediction.labels, shares)

    def write_stored(self, out: Path, source: ImageSource, classes: ClassTable, store: Store) -> None:
        """Write what is wanted of a prediction in a store, band by band; files in the way are replaced."""
        self._write(out, source, classes, store.labels, store.shares)

    def _write(
        self, out: Path, source: ImageSource, classes: ClassTable, labels: LabelRows, shares: LabelRows | None
    ) -> None:
        paths = self.paths(out, source)
        for path in paths.values():
            make_folder(path.parent)
        labels = measured(labels, source, classes)
        self._write_rows(paths["masks"], source, classes, "labels", labels)
        if self._form(source) == "geotiff":
            write_mask_style(paths["masks"].with_suffix(".qml"), classes)
        if shares is not None:
            self._write_rows(paths["probabilities"], source, classes, "probabilities", shares)
        if self.overlays:
            write_image(paths["overlays"], small_overlay(source, labels, classes), overwrite=True)
        if self.polygons:
            place = source.georeference
            found = (
                to_geojson(labels, classes, transform=place.transform, crs=place.name or None)
                if place
                else to_geojson(labels, classes)
            )
            write_geojson(paths["polygons"], found, overwrite=True)
            if place:
                write_outline_style(paths["polygons"].with_suffix(".qml"), classes)
        if self.objects:
            if prod(source.size) > _OBJECT_PIXELS:
                raise MachineError(
                    f"objects of {source.path}, an image of {prod(source.size) / 1e6:.0f} megapixels",
                    f"at most {_OBJECT_PIXELS / 1e6:.0f}, since regions are found in memory",
                    "take --polygons in place of --objects",
                )
            dataset = to_coco(np.asarray(labels[:]), classes, source.path.name)
            write_coco(paths["objects"], dataset, overwrite=True)

    def _write_rows(
        self,
        path: Path,
        source: ImageSource,
        classes: ClassTable,
        content: Literal["labels", "probabilities"],
        rows: LabelRows,
    ) -> None:
        shares = self.shares if content == "probabilities" else None
        with open_output(
            path,
            size=source.size,
            classes=classes,
            content=content,
            dtype=shares.dtype if shares else classes.dtype,
            channels=shares.classes if shares else None,
            chunk=_CHUNK,
            georeference=source.georeference if self._form(source) == "geotiff" else None,
            overwrite=True,
        ) as output:
            for top in range(0, source.size[0], _CHUNK):
                output.write_rows(top, _row_of_chunks(rows, top))
            output.finish()

    def _kinds(self) -> list[str]:
        wanted = {
            "masks": True,
            "overlays": self.overlays,
            "probabilities": self.shares is not None,
            "polygons": self.polygons,
            "objects": self.objects,
        }
        return [kind for kind, is_wanted in wanted.items() if is_wanted]

    def _form(self, source: ImageSource) -> Form:
        if self.form == "geotiff" and source.georeference is None:
            raise ConfigError(
                f"a GeoTIFF of {source.path}, which has no georeference",
                "an image that says where it lies",
                source.hint or "take --format tiff",
            )
        if self.form != "auto":
            return self.form
        if source.georeference is not None:
            return "geotiff"
        return "png" if prod(source.size) <= _PNG_PIXELS else "tiff"


def _row_of_chunks(rows: Any, top: int) -> NDArray[Any]:
    """Return rows of an array; of one on disk part by part, since Zarr decodes beside its result."""
    bottom = min(top + _CHUNK, rows.shape[0])
    if isinstance(rows, np.ndarray):
        return rows[top:bottom]
    band = np.empty((bottom - top, *rows.shape[1:]), rows.dtype)
    for left in range(0, rows.shape[1], _PART):
        band[:, left : left + _PART] = rows[top:bottom, left : left + _PART]
    return band


def small_overlay(source: ImageSource, labels: Any, classes: ClassTable) -> NDArray[np.uint8]:
    """Return an image with its labels painted over it; of a large one every n-th row and column.

    ``labels`` is an array H×W, or one on disk that gives parts of rows and columns.
    """
    height, width = source.size
    step = ceil(sqrt(height * width / _OVERLAY_PIXELS))
    if step <= 1:
        return overlay(source.read(), np.asarray(labels[:]), classes)
    size = (ceil(height / step), ceil(width / step))
    pixels = np.empty((*size, source.channels), source.dtype)
    marks = np.empty(size, classes.dtype)
    rows, columns = (max(_CHUNK, side) for side in source.chunk)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            part = slice(top, top + rows), slice(left, left + columns)
            kept = slice(-top % step, None, step), slice(-left % step, None, step)
            taken = source.read(*part)[kept]
            row, column = ceil(top / step), ceil(left / step)
            here = slice(row, row + taken.shape[0]), slice(column, column + taken.shape[1])
            pixels[here], marks[here] = taken, np.asarray(labels[part])[kept]
    return overlay(pixels, marks, classes)
