"""Labels as outlines and back: polygons with exact pixel edges, GeoJSON, and the run lengths of COCO.

Points are (row, column) except inside GeoJSON, which has (x, y).
"""

from fullyconv.outlines._fill import fill_polygons
from fullyconv.outlines._geojson import Affine, collect_features, to_geojson, write_geojson
from fullyconv.outlines._polygon import Polygon
from fullyconv.outlines._rle import Rle, decode_rle, encode_rle, encode_rles
from fullyconv.outlines._trace import LabelRows, trace_polygons

__all__ = [
    "Affine",
    "LabelRows",
    "Polygon",
    "Rle",
    "collect_features",
    "decode_rle",
    "encode_rle",
    "encode_rles",
    "fill_polygons",
    "to_geojson",
    "trace_polygons",
    "write_geojson",
]
