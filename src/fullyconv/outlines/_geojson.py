"""GeoJSON (RFC 7946) that QuPath, QGIS and GDAL read."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.errors import GeometryError, ImageError
from fullyconv.images import atomic_file
from fullyconv.labels import ClassTable, Labels
from fullyconv.outlines._polygon import Polygon, Ring
from fullyconv.outlines._trace import LabelRows, trace_polygons

Affine = tuple[float, float, float, float, float, float]

_PIXELS: Affine = (1, 0, 0, 0, 1, 0)


def to_geojson(
    labels: Labels | LabelRows,
    classes: ClassTable,
    *,
    leave_out: Collection[int] = (0,),
    transform: Affine = _PIXELS,
    crs: str | None = None,
) -> dict[str, Any]:
    """Outline labels as a GeoJSON FeatureCollection: one Polygon per connected region of a class.

    Parameters
    ----------
    labels
        H×W classes of ``classes`` or its ignore index, which is never outlined.
    classes
        Names and colours: ``properties.classification`` of QuPath (``objectType`` is "annotation").
    leave_out
        Classes without outlines: the background, which is class 0 here as in `fullyconv.images.overlay`.
    transform
        (a, b, c, d, e, f) of x = a·column + b·row + c, y = d·column + e·row + f, as rasterio orders them. The
        default gives pixels, (0, 0) at the top left corner of the image: what QuPath takes.
    crs
        Name of the coordinate reference system of ``transform``, such as ``"EPSG:32633"``. Written as the
        ``crs`` member of GeoJSON 2008, which QGIS and GDAL read; RFC 7946 itself knows only longitude and
        latitude.

    Returns
    -------
    dict
        Ready for `json.dumps` or `write_geojson`.

    Raises
    ------
    GeometryError
        The transform has no inverse.
    ImageError
        The labels are not H×W whole numbers, or one is not in the table.

    Examples
    --------
    >>> table = ClassTable(("background", "nucleus"))
    >>> feature = to_geojson(np.array([[0, 1]]), table)["features"][0]
    >>> feature["geometry"]["coordinates"]
    [[[1, 0], [2, 0], [2, 1], [1, 1], [1, 0]]]
    >>> feature["properties"]["classification"]
    {'name': 'nucleus', 'color': [230, 159, 0]}
    """
    polygons = trace_polygons(labels, leave_out={*leave_out, classes.ignore_index})
    return collect_features(polygons, classes, transform=transform, crs=crs)


def collect_features(
    polygons: Iterable[Polygon], classes: ClassTable, *, transform: Affine = _PIXELS, crs: str | None = None
) -> dict[str, Any]:
    """Make a GeoJSON FeatureCollection of polygons; parameters and errors as in `to_geojson`."""
    a, b, c, d, e, f = transform
    if not (np.isfinite(transform).all() and a * e - b * d):
        raise GeometryError(f"the transform {transform}", "one with an inverse", "check the georeference")
    whole = all(float(part).is_integer() for part in transform)
    # In (x, y) of pixels an outer ring is counter-clockwise already; a mirroring transform turns it round.
    turn = 1 if a * e - b * d > 0 else -1

    def place(ring: Ring) -> list[list[float]]:
        rows, columns = ring[::turn].T
        points: NDArray[Any] = np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=1)
        if whole and ring.dtype.kind == "i":
            points = points.astype(np.int64)
        return [*points.tolist(), points[0].tolist()]

    polygons = list(polygons)
    unknown = sorted({polygon.label for polygon in polygons} - set(range(len(classes))))
    if unknown:
        raise ImageError(
            f"label {unknown[0]}",
            f"0 to {len(classes) - 1}",
            "check that this class table belongs to these labels",
        )
    collection: dict[str, Any] = {"type": "FeatureCollection"}
    if crs is not None:
        collection["crs"] = {"type": "name", "properties": {"name": crs}}
    collection["features"] = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [place(ring) for ring in polygon.rings]},
            "properties": {
                "objectType": "annotation",
                "classification": {
                    "name": classes.names[polygon.label],
                    "color": list(classes.colors[polygon.label]),
                },
            },
        }
        for polygon in polygons
    ]
    return collection


def write_geojson(path: str | Path, collection: dict[str, Any], *, overwrite: bool = False) -> None:
    """Write a FeatureCollection, one feature per line; the file appears whole or not at all.

    Raises
    ------
    InputError
        The file exists, or its folder does not.
    MachineError
        The disk is full.
    """
    head = json.dumps({key: value for key, value in collection.items() if key != "features"})[:-1]
    features = collection["features"]
    with atomic_file(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{head}, "features": [')
        for number, feature in enumerate(features):
            file.write(",\n" if number else "\n")
            json.dump(feature, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n]}\n")
