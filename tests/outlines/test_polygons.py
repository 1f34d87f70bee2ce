"""Polygons: the laws that tie them to pixels, with scipy, rasterio and brute force as oracles."""

import json

import numpy as np
import pytest
import rasterio.features
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.transform import Affine as RasterioAffine
from scipy import ndimage

from fullyconv.errors import GeometryError, ImageError, InputError
from fullyconv.labels import ClassTable
from fullyconv.outlines import (
    Polygon,
    _trace,
    collect_features,
    fill_polygons,
    to_geojson,
    trace_polygons,
    write_geojson,
)

TABLE = ClassTable(("background", "nucleus", "border"))
SMALL = st.one_of(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2)),
    hnp.arrays(
        np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 60000)
    ),
)


def signed_area(ring):
    row, column = ring.T.astype(float)
    return float(column @ np.roll(row, -1) - row @ np.roll(column, -1)) / 2


@settings(deadline=None, max_examples=300)
@given(SMALL, st.booleans())
def test_polygons_are_the_regions_of_the_labels(labels, keep_zero):
    polygons = trace_polygons(labels, leave_out=() if keep_zero else (0,))
    filled = fill_polygons(polygons, labels.shape, dtype=labels.dtype)
    assert np.array_equal(filled, labels)
    for label in np.unique(labels if keep_zero else labels[labels > 0]):
        mine = [polygon for polygon in polygons if polygon.label == label]
        assert sum(polygon.area for polygon in mine) == np.count_nonzero(labels == label)
        regions, count = ndimage.label(labels == label)
        assert len(mine) == count
        for polygon in mine:
            inside = fill_polygons([polygon], labels.shape, outside=0, dtype=np.int64) == label
            inside = inside if label else fill_polygons([Polygon(1, polygon.rings)], labels.shape) == 1
            (number,) = np.unique(regions[inside])
            assert np.array_equal(inside, regions == number)


@settings(deadline=None, max_examples=300)
@given(SMALL)
def test_rings_are_valid_simple_features(labels):
    for polygon in trace_polygons(labels):
        outer, *holes = polygon.rings
        assert signed_area(outer) > 0
        assert all(signed_area(hole) < 0 for hole in holes)
        for ring in polygon.rings:
            steps = np.roll(ring, -1, axis=0) - ring
            assert ((steps != 0).sum(axis=1) == 1).all(), "every step goes along one axis"
            assert ((np.roll(steps, -1, axis=0) != 0) != (steps != 0)).all(), "every corner turns"
            assert len({tuple(corner) for corner in ring.tolist()}) == len(ring), "a ring touches itself"
        top, left, bottom, right = polygon.bounds
        assert all(top <= hole.min(axis=0)[0] and hole.max(axis=0)[1] <= right for hole in holes)
        assert outer[0].tolist()[0] == top
        assert bottom > top
        assert right > left


@settings(deadline=None, max_examples=100)
@given(SMALL, st.integers(1, 40))
def test_bands_change_nothing(labels, pixels):
    whole = trace_polygons(labels)
    before = _trace._BAND_PIXELS
    _trace._BAND_PIXELS = pixels
    try:
        banded = trace_polygons(labels)
    finally:
        _trace._BAND_PIXELS = before
    assert [each.label for each in banded] == [each.label for each in whole]
    for one, other in zip(banded, whole, strict=True):
        assert [ring.tolist() for ring in one.rings] == [ring.tolist() for ring in other.rings]


def test_only_bands_of_rows_are_asked_for(monkeypatch):
    monkeypatch.setattr(_trace, "_BAND_PIXELS", 40)
    labels = np.random.default_rng(0).integers(0, 3, (31, 10))
    asked = []

    class OnDisk:
        shape = labels.shape

        def __getitem__(self, rows):
            asked.append((rows.start, rows.stop))
            return labels[rows]

    assert len(trace_polygons(OnDisk())) == len(trace_polygons(labels))
    assert asked == [(top, top + 4) for top in range(0, 32, 4)]


def test_rasterio_finds_the_same_polygons():
    labels = ndimage.zoom(np.random.default_rng(3).integers(0, 4, (12, 17)), 5, order=0).astype(np.uint8)
    labels[5:9, 7:11] = 9
    mine = {
        (polygon.label, frozenset(frozenset(map(tuple, ring[:, ::-1].tolist())) for ring in polygon.rings))
        for polygon in trace_polygons(labels)
    }
    theirs = {
        (int(label), frozenset(frozenset((int(x), int(y)) for x, y in ring) for ring in shape["coordinates"]))
        for shape, label in rasterio.features.shapes(labels, connectivity=4)
    }
    assert mine == theirs


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(np.float64, (5, 2), elements=st.floats(-3, 12, width=16)),
    hnp.arrays(np.float64, (4, 2), elements=st.floats(-3, 12, width=16)),
)
def test_filling_counts_the_crossings_left_of_each_centre(outer, hole):
    filled = fill_polygons([Polygon(1, (outer, hole))], (9, 8))
    for row, column in np.ndindex(9, 8):
        crossings = 0
        for ring in (outer, hole):
            for (y0, x0), (y1, x1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if min(y0, y1) <= row + 0.5 < max(y0, y1):
                    crossings += x0 + (row + 0.5 - y0) / (y1 - y0) * (x1 - x0) <= column + 0.5
        assert filled[row, column] == crossings % 2


def test_filling_equals_rasterio_on_polygons_of_fractions():
    rng = np.random.default_rng(8)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 40))
    ring = 50 + rng.uniform(10, 45, 40)[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    shape = {"type": "Polygon", "coordinates": [[*ring[:, ::-1].tolist(), ring[0, ::-1].tolist()]]}
    expected = rasterio.features.rasterize([shape], (100, 100), dtype=np.uint8)
    assert np.array_equal(fill_polygons([Polygon(1, (ring,))], (100, 100)), expected)


def test_later_polygons_cover_earlier_ones_and_all_is_cut_off(monkeypatch):
    square = np.array([[-5, -5], [-5, 50], [3, 50], [3, -5]])
    first, second = Polygon(1, (square,)), Polygon(2, (square[:, ::-1],))
    for at_once in (2**22, 3):
        monkeypatch.setattr("fullyconv.outlines._fill._PAINTED_AT_ONCE", at_once)
        labels = fill_polygons([first, second], (4, 5), outside=9)
        assert labels.tolist() == [[2, 2, 2, 1, 1]] * 3 + [[2, 2, 2, 9, 9]]
    assert fill_polygons([], (2, 3), outside=4).tolist() == [[4] * 3] * 2


def test_nothing_to_outline():
    assert trace_polygons(np.zeros((4, 5), int), leave_out=(0,)) == []
    assert trace_polygons(np.zeros((0, 5), int)) == []
    assert trace_polygons(np.zeros((5, 0), int)) == []


def test_a_large_image_of_many_objects(benchmark_labels):
    polygons = trace_polygons(benchmark_labels, leave_out=(0,))
    assert np.array_equal(fill_polygons(polygons, benchmark_labels.shape, dtype=np.int32), benchmark_labels)


@pytest.fixture(scope="module")
def benchmark_labels():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:80, :80]
    disc = (rows - 40) ** 2 + (columns - 40) ** 2 < 37**2
    labels = np.zeros((2048, 2048), np.int32)
    for number, (row, column) in enumerate(rng.integers(0, 2048 - 80, (1000, 2)), 1):
        labels[row : row + 80, column : column + 80][disc] = number
    return labels


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((2, 2)), "float64"),
        (np.array([[0, -1]]), "below 0"),
        (np.zeros((2, 2, 1), int), "shape"),
    ],
)
def test_what_are_no_labels_is_refused(labels, words):
    with pytest.raises(ImageError, match=words):
        trace_polygons(labels)


@pytest.mark.parametrize(
    "rings",
    [(), (np.zeros((2, 2)),), (np.zeros((4, 3)),), (np.array([[0, 0], [0, np.nan], [1, 1]]),)],
    ids=["none", "two corners", "three axes", "not finite"],
)
def test_what_is_no_polygon_is_refused(rings):
    with pytest.raises(GeometryError, match="label 3"):
        Polygon(3, rings)


def test_a_label_too_large_for_the_type_is_refused():
    with pytest.raises(ImageError, match="label 256 for uint8"):
        fill_polygons([Polygon(256, (np.array([[0, 0], [0, 1], [1, 1]]),))], (2, 2))


# GeoJSON


LABELS = np.array([[0, 1, 1, 1], [0, 1, 255, 1], [2, 1, 1, 1]])


def test_geojson_has_what_qupath_reads():
    collection = json.loads(json.dumps(to_geojson(LABELS, TABLE)))
    assert collection.keys() == {"type", "features"}
    nucleus, border = collection["features"]
    assert nucleus["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "nucleus", "color": list(TABLE.colors[1])},
    }
    assert nucleus["geometry"] == {
        "type": "Polygon",
        "coordinates": [
            [[1, 0], [4, 0], [4, 3], [1, 3], [1, 0]],
            [[3, 1], [2, 1], [2, 2], [3, 2], [3, 1]],
        ],
    }
    assert border["properties"]["classification"]["name"] == "border"


def test_every_class_may_be_outlined_but_never_ignored_pixels():
    names = [
        each["properties"]["classification"]["name"]
        for each in to_geojson(LABELS, TABLE, leave_out=())["features"]
    ]
    assert names == ["background", "nucleus", "border"]


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.uint8, (6, 7), elements=st.integers(0, 2)),
    st.sampled_from([(0.5, 0, 300000, 0, -0.5, 5e6), (0, 2, 1, 3, 0, 2), (1, 0.5, 0, 0.25, 2, 0)]),
)
def test_places_on_the_ground_rasterise_to_the_labels(labels, transform):
    collection = to_geojson(labels, TABLE, transform=transform, crs="EPSG:32633")
    assert collection["crs"] == {"type": "name", "properties": {"name": "EPSG:32633"}}
    back = np.zeros_like(labels)
    a, b, c, d, e, f = transform
    inverse = ~RasterioAffine(a, b, c, d, e, f)
    for feature in collection["features"]:
        outer, *holes = feature["geometry"]["coordinates"]
        assert outer[0] == outer[-1]
        assert signed_area(np.array(outer)[:-1, ::-1]) > 0
        assert all(signed_area(np.array(hole)[:-1, ::-1]) < 0 for hole in holes)
        rings = [
            np.array(
                [
                    (inverse @ point)[::-1] if hasattr(inverse, "__matmul__") else (inverse * point)[::-1]
                    for point in ring[:-1]
                ]
            )
            for ring in (outer, *holes)
        ]
        label = TABLE.names.index(feature["properties"]["classification"]["name"])
        back[fill_polygons([Polygon(1, tuple(rings))], labels.shape) == 1] = label
    assert np.array_equal(back, labels)


def test_a_transform_without_inverse_and_unknown_labels_are_refused():
    for wrong in [(1, 0, 0, 1, 0, 0), (np.nan, 0, 0, 0, 1, 0)]:
        with pytest.raises(GeometryError, match="inverse"):
            to_geojson(LABELS, TABLE, transform=wrong)
    with pytest.raises(ImageError, match="label 7"):
        to_geojson(np.array([[7]]), TABLE)


def test_the_file_is_the_collection_one_feature_per_line(tmp_path):
    path = tmp_path / "a.geojson"
    for labels in (LABELS, np.zeros_like(LABELS)):
        collection = to_geojson(labels, TABLE, crs="EPSG:4326")
        write_geojson(path, collection, overwrite=True)
        text = path.read_text(encoding="utf-8")
        assert json.loads(text) == collection
        assert len(text.splitlines()) == len(collection["features"]) + 2
    with pytest.raises(InputError, match="already exists"):
        write_geojson(path, collection)
    assert collect_features([], TABLE)["features"] == []
