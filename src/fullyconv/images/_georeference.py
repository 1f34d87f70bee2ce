"""Where an image lies on the ground, read by rasterio (the extra ``geo``)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

Affine = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Georeference:
    """Where an image lies on the ground.

    Parameters
    ----------
    crs
        The coordinate reference system as WKT, empty if the file names none.
    transform
        (a, b, c, d, e, f) of x = a·column + b·row + c, y = d·column + e·row + f, at the corners of pixels.
    nodata
        The value of pixels without measurement, if the file names one.
    """

    crs: str
    transform: Affine
    nodata: float | None = None

    @property
    def name(self) -> str:
        """The coordinate reference system by its code, such as "EPSG:32633"; as WKT where it has none."""
        import rasterio

        code = rasterio.crs.CRS.from_user_input(self.crs).to_authority() if self.crs else None
        return ":".join(code) if code else self.crs


def read_georeference(path: Path) -> tuple[Georeference | None, str]:
    """Return the georeference of a GeoTIFF, or nothing and a hint where rasterio is not installed."""
    try:
        import rasterio
    except ImportError:
        return None, f"{path} is georeferenced; to keep that: pip install 'fullyconv[geo]'"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files with a transform that is the identity
            with rasterio.open(path) as dataset:
                crs = dataset.crs.to_wkt() if dataset.crs else ""
                a, b, c, d, e, f = tuple(dataset.transform)[:6]
                nodata = None if dataset.nodata is None else float(dataset.nodata)
    except rasterio.errors.RasterioError as error:
        return None, f"{path} is georeferenced, but not so that GDAL can read it: {error}"
    return Georeference(crs, (a, b, c, d, e, f), nodata), ""
