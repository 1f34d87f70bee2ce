"""What predict writes is what napari, QuPath and QGIS read; docs/how-to has a recipe for each."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from fullyconv.images import Georeference, open_output
from fullyconv.inference.qgis import write_mask_style, write_outline_style
from fullyconv.labels import ClassTable
from fullyconv.outlines import to_geojson, write_geojson

TABLE = ClassTable(("back ground", "Zelle: groß", "细胞"), ((0, 0, 0), (230, 159, 0), (86, 180, 233)))
UTM = (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0)


@pytest.fixture
def labels() -> np.ndarray:
    """A ring of class 1 around class 2, and pixels without a class."""
    values = np.zeros((40, 60), np.uint8)
    values[5:25, 10:40] = 1
    values[12:18, 20:30] = 2
    values[30:, 50:] = TABLE.ignore_index
    return values


def written(path: Path, labels: np.ndarray, place: Georeference | None = None) -> Path:
    with open_output(path, size=labels.shape, classes=TABLE, chunk=16, georeference=place) as output:
        output.write_rows(0, labels)
        output.finish()
    return path


def test_napari_finds_a_labels_layer_with_its_pyramid_colours_and_names(
    tmp_path: Path, labels: np.ndarray
) -> None:
    """By what napari-ome-zarr 0.10 asks of a group before it makes a labels layer of it."""
    import zarr

    group = zarr.open_group(written(tmp_path / "m.zarr", labels), mode="r")
    about = group.attrs["ome"]
    assert about["version"] == "0.5"
    assert "image-label" in about  # else it would be an image layer
    (scale,) = about["multiscales"]
    assert [axis["name"] for axis in scale["axes"]] == ["y", "x"]
    levels = [group[level["path"]] for level in scale["datasets"]]
    assert len(levels) > 1
    assert all(level.dtype.kind == "u" for level in levels)  # a labels layer takes whole numbers only
    assert np.array_equal(levels[0][:], labels)
    for finer, coarser in pairwise(levels):
        assert coarser.shape == tuple(-(-side // 2) for side in finer.shape)
    colors = {entry["label-value"]: tuple(entry["rgba"]) for entry in about["image-label"]["colors"]}
    # The background is transparent: it would hide the image under the layer.
    assert colors == {label: (*color, 255 if label else 0) for label, color in enumerate(TABLE.colors)}
    names = {entry["label-value"]: entry["name"] for entry in about["image-label"]["properties"]}
    assert tuple(names[label] for label in range(3)) == TABLE.names


def test_qupath_finds_annotations_with_classes_in_pixels(tmp_path: Path, labels: np.ndarray) -> None:
    write_geojson(tmp_path / "m.geojson", to_geojson(labels, TABLE))
    collection = json.loads((tmp_path / "m.geojson").read_text("utf-8"))
    assert collection["type"] == "FeatureCollection"
    assert "crs" not in collection
    ring, inner = collection["features"]
    for feature, label in ((ring, 1), (inner, 2)):
        assert feature["type"] == "Feature"
        assert feature["properties"]["objectType"] == "annotation"
        classification = feature["properties"]["classification"]
        assert classification == {"name": TABLE.names[label], "color": list(TABLE.colors[label])}
        for points in feature["geometry"]["coordinates"]:
            assert points[0] == points[-1]
            assert all(0 <= x <= 60 and 0 <= y <= 40 for x, y in points)
    assert ring["geometry"]["type"] == "Polygon"
    assert len(ring["geometry"]["coordinates"]) == 2  # the hole


def test_qgis_finds_a_palette_and_a_place(tmp_path: Path, labels: np.ndarray) -> None:
    rasterio = pytest.importorskip("rasterio", reason="an extra: geo")
    path = written(tmp_path / "m.tif", labels, Georeference("EPSG:32633", UTM))
    with rasterio.open(path) as mask:
        assert mask.crs.to_epsg() == 32633
        assert tuple(mask.transform)[:6] == UTM
        assert mask.nodata == TABLE.ignore_index
        assert mask.colorinterp[0] is rasterio.enums.ColorInterp.palette
        colors = mask.colormap(1)
        assert [colors[label][:3] for label in range(3)] == list(TABLE.colors)
        assert [mask.tags()[f"CLASS_{label}"] for label in range(3)] == list(TABLE.names)
        assert np.array_equal(mask.read(1), labels)


def test_qgis_finds_names_and_colours_beside_masks_and_outlines(tmp_path: Path) -> None:
    """By what QGIS 3.22 reads of its style files."""
    write_mask_style(tmp_path / "mask.qml", TABLE)
    renderer = ElementTree.parse(tmp_path / "mask.qml").find("pipe/rasterrenderer[@type='paletted']")
    assert renderer is not None
    entries = [entry.attrib for entry in renderer.iterfind("colorPalette/paletteEntry")]
    assert [(entry["value"], entry["label"]) for entry in entries] == [
        ("0", "back ground"), ("1", "Zelle: groß"), ("2", "细胞")
    ]  # fmt: skip
    assert [(entry["color"], entry["alpha"]) for entry in entries] == [
        ("#000000", "0"), ("#e69f00", "255"), ("#56b4e9", "255")
    ]  # fmt: skip
    write_outline_style(tmp_path / "outlines.qml", TABLE)
    renderer = ElementTree.parse(tmp_path / "outlines.qml").find("renderer-v2[@type='categorizedSymbol']")
    assert renderer is not None
    colors = {
        symbol.attrib["name"]: [option.attrib["value"] for option in symbol.iterfind("layer/Option/Option")]
        for symbol in renderer.iterfind("symbols/symbol")
    }
    shown = {
        category.attrib["value"]: colors[category.attrib["symbol"]]
        for category in renderer.iterfind("categories/category")
    }
    assert shown == {
        "Zelle: groß": ["230,159,0,64", "230,159,0,255"],
        "细胞": ["86,180,233,64", "86,180,233,255"],
    }


def test_qgis_finds_polygons_in_their_own_system(tmp_path: Path, labels: np.ndarray) -> None:
    pyogrio = pytest.importorskip("pyogrio", reason="for tests alone: it reads as QGIS does")
    rasterio = pytest.importorskip("rasterio", reason="an extra: geo")
    place = Georeference(rasterio.CRS.from_epsg(32633).to_wkt(), UTM)
    assert place.name == "EPSG:32633"
    assert Georeference("", UTM).name == ""
    collection = to_geojson(labels, TABLE, transform=place.transform, crs=place.name)
    assert collection["crs"]["properties"]["name"] == "EPSG:32633"
    write_geojson(tmp_path / "m.geojson", collection)
    about = pyogrio.read_info(tmp_path / "m.geojson")
    assert about["crs"] == "EPSG:32633"
    assert (about["geometry_type"], about["features"]) == ("Polygon", 2)
    assert {"objectType", "classification"} <= set(about["fields"])
    left, bottom, right, top = about["total_bounds"]
    assert (left, right) == (500_005, 500_020)
    assert (bottom, top) == (5_799_987.5, 5_799_997.5)
