"""Outputs: one contract over every form, read back by other libraries; whole files or none."""

import errno
import json
import os
import resource
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fullyconv.errors import ImageError, InputError, MachineError
from fullyconv.images import Georeference, open_image, open_output, read_mask
from fullyconv.images._output import SINKS
from fullyconv.images._output_zarr import _majority, _mean
from fullyconv.labels import ClassTable

TABLE = ClassTable(("background", "cell", "border"))
MANY = ClassTable.of(300)
CRS = rasterio.CRS.from_epsg(32633).to_wkt()
PLACE = Georeference(CRS, (0.5, 0.0, 300000.0, 0.0, -0.5, 5000000.0), -9999.0)
RNG = np.random.default_rng(5)


def labels_of(size, table=TABLE):
    labels = RNG.integers(0, len(table), size).astype(table.dtype)
    labels[size[0] // 2 :, : size[1] // 3] = table.ignore_index
    return labels


def shares_of(size, count=3, dtype=np.float16):
    values = RNG.dirichlet(np.ones(count + 1), size)[..., 1:]
    return np.rint(values * 255).astype(np.uint8) if dtype == np.uint8 else values.astype(dtype)


def write(path, values, table=TABLE, chunk=32, bands=1, **options):
    if values.ndim == 3:
        options |= {"content": "probabilities", "dtype": values.dtype}
    with open_output(path, size=values.shape[:2], classes=table, chunk=chunk, **options) as output:
        for top in range(0, len(values), bands * chunk):
            output.write_rows(top, values[top : top + bands * chunk])
            assert not os.path.lexists(path) or options.get("overwrite")
        output.finish()
    return path


def begin(path, name):
    values, table, options = CASES[name]
    if values.ndim == 3:
        options = {**options, "content": "probabilities", "dtype": values.dtype}
    return open_output(path, size=values.shape[:2], classes=table, chunk=32, **options)


def contents(path):
    files = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]
    return {file.relative_to(path.parent).parts[1:]: file.read_bytes() for file in files}


def cases():
    for suffix in SINKS:
        yield f"labels{suffix}", labels_of((101, 75)), TABLE, {}
        yield f"many labels{suffix}", labels_of((70, 64), MANY), MANY, {}
        if suffix != ".png":
            yield f"half{suffix}", shares_of((101, 75)), TABLE, {}
            yield f"bytes{suffix}", shares_of((64, 33), 3, np.uint8), TABLE, {}
            yield f"single{suffix}", shares_of((40, 90), 3, np.float32), TABLE, {}
            yield f"chosen{suffix}", shares_of((50, 70), 2), TABLE, {"channels": (2, 0)}
            yield f"one{suffix}", shares_of((50, 70), 1), TABLE, {"channels": [1]}
            yield f"map{suffix}", labels_of((101, 75)), TABLE, {"georeference": PLACE}
            yield f"map of shares{suffix}", shares_of((64, 64)), TABLE, {"georeference": PLACE}


CASES = {name: rest for name, *rest in cases()}


@pytest.mark.parametrize("name", CASES)
class TestContract:
    def test_what_is_written_comes_back(self, name, tmp_path):
        values, table, options = CASES[name]
        path = write(tmp_path / name, values, table, **options)
        assert [each.name for each in tmp_path.iterdir()] == [name]
        if values.ndim == 2 and not path.is_dir():
            assert np.array_equal(read_mask(path).values, values)
            return
        with open_image(path) as source:
            assert source.size == values.shape[:2]
            back = source.read()
            assert back.dtype == values.dtype
            assert np.array_equal(back, values.reshape(back.shape))
            assert np.array_equal(source.read(slice(30, 50), slice(5, 33)), back[30:50, 5:33])

    def test_equal_content_gives_equal_bytes(self, name, tmp_path):
        values, table, options = CASES[name]
        first = write(tmp_path / name, values, table, **options)
        before = contents(first)
        other = tmp_path / "other"
        other.mkdir()
        again = write(other / name, values, table, bands=2, **options)
        assert contents(again) == before

    def test_giving_up_or_failing_leaves_nothing(self, name, tmp_path):
        values = CASES[name][0]
        output = begin(tmp_path / name, name)
        output.abort()
        output.abort()
        assert list(tmp_path.iterdir()) == []
        with begin(tmp_path / name, name) as output:
            output.write_rows(0, values[:32])
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(KeyboardInterrupt), begin(tmp_path / name, name):
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []
        with begin(tmp_path / name, name) as output:
            output.write_rows(0, values[:32])
            with pytest.raises(ImageError, match=r"32 of \d+ rows"):
                output.finish()
        assert list(tmp_path.iterdir()) == []

    def test_rows_come_in_order_whole_and_once(self, name, tmp_path):
        values = CASES[name][0]
        wrong = [
            (32, values[32:64]),
            (0, values[:31]),
            (0, values[:32, :-1]),
            (0, values[:32].astype(np.int64)),
            (0, values[:32][..., None]),
            (0, np.concatenate([values, values])[:256]),
        ]
        for top, block in wrong:
            with begin(tmp_path / name, name) as output:
                with pytest.raises(ImageError, match="rows from"):
                    output.write_rows(top, block)
                with pytest.raises(ImageError, match="rows from"):
                    output.write_rows(0, values[:32])
            assert list(tmp_path.iterdir()) == []

    def test_what_is_there_is_kept_unless_told(self, name, tmp_path):
        values, table, options = CASES[name]
        path = write(tmp_path / name, values, table, **options)
        before = contents(path)
        with pytest.raises(InputError, match="already exists"):
            write(path, values[::-1], table, **options)
        assert contents(path) == before
        write(path, values[::-1], table, overwrite=True, **options)
        assert contents(path) != before
        assert list(tmp_path.iterdir()) == [path]

    def test_a_full_disk_is_a_fault_of_the_machine(self, name, tmp_path):
        values, table, options = CASES[name]
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
        try:
            with pytest.raises(MachineError, match=r"too large.*df -h"):
                write(tmp_path / name, values, table, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_noticed_only_by_fsync_is_too(self, name, tmp_path, monkeypatch):
        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        values, table, options = CASES[name]
        path = write(tmp_path / name, values, table, **options)
        before = contents(path)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(MachineError, match="No space left"):
            write(path, values[::-1], table, overwrite=True, **options)
        assert contents(path) == before
        assert list(tmp_path.iterdir()) == [path]


def test_nobody_waits_for_a_file_that_failed_while_tiles_piled_up(tmp_path, monkeypatch):
    def fail_late(*_, **__):
        time.sleep(0.5)
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill():
        try:
            write(tmp_path / "a.tif", np.zeros((32, 3200), np.uint8))
        except MachineError as error:
            raised.append(error)

    monkeypatch.setattr(tifffile.TiffWriter, "write", fail_late)
    raised = []
    writer = threading.Thread(target=fill, daemon=True)
    writer.start()
    writer.join(30)
    assert len(raised) == 1
    assert list(tmp_path.iterdir()) == []


def test_who_takes_the_name_meanwhile_keeps_it(tmp_path):
    values = labels_of((64, 64))
    for name in ("a.tif", "a.zarr"):
        with open_output(tmp_path / name, size=(64, 64), classes=TABLE, chunk=32) as output:
            output.write_rows(0, values)
            (tmp_path / name).mkdir() if name == "a.zarr" else (tmp_path / name).write_text("early")
            with pytest.raises(InputError, match="already exists"):
                output.finish()
    assert (tmp_path / "a.tif").read_text() == "early"
    assert not list(tmp_path.glob(".*"))


def test_only_zarr_folders_are_replaced(tmp_path):
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "precious.txt").touch()
    with pytest.raises(InputError, match="in the way"):
        open_output(path, size=(64, 64), classes=TABLE, overwrite=True)
    assert (path / "precious.txt").exists()
    (tmp_path / "b.tif").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        open_output(tmp_path / "b.tif", size=(64, 64), classes=TABLE, overwrite=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "a.jpg"}, r"\.png, \.tif"),
        ({"path": "a.png", "size": (20000, 20000)}, r"400000000 pixels for a PNG.*\.tif or \.zarr"),
        ({"path": "a.png", "content": "probabilities"}, r"probabilities as PNG.*\.tif or \.zarr"),
        ({"size": (0, 5)}, "size"),
        ({"chunk": 100}, "tiles of 100"),
        ({"dtype": "int64"}, "type int64"),
        ({"dtype": "uint8", "classes": MANY}, "type uint8"),
        ({"content": "probabilities", "dtype": "uint16"}, "type uint16"),
        ({"content": "probabilities", "channels": [0, 3]}, r"\(0, 3\)"),
        ({"content": "probabilities", "channels": []}, r"classes \(\)"),
    ],
    ids=str,
)
def test_what_cannot_be_written_is_refused_at_once(tmp_path, options, words):
    path = tmp_path / options.pop("path", "a.tif")
    with pytest.raises(ImageError, match=words):
        open_output(path, **{"size": (64, 64), "classes": TABLE, **options})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="mkdir -p"):
        open_output(tmp_path / "no" / "a.zarr", size=(4, 4), classes=TABLE)


# TIFF


def test_other_programs_read_the_labels_of_a_tiff(tmp_path):
    labels = labels_of((101, 75))
    path = write(tmp_path / "a.tif", labels)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        assert file.is_bigtiff
        assert (page.tilelength, page.tilewidth, page.compression, page.predictor) == (32, 32, 8, 1)
        assert "DateTime" not in page.tags
        assert np.array_equal(page.asarray(), labels)
        facts = json.loads(page.description)["fullyconv"]
        assert facts["classes"][1] == {"label": 1, "name": "cell", "color": list(TABLE.colors[1])}
        assert facts["ignore_index"] == 255
    with Image.open(path) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), labels)
        assert np.array_equal(np.asarray(image.convert("RGB")), TABLE.to_colors(labels))
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path) as dataset:
        assert np.array_equal(dataset.read(1), labels)


def test_the_channels_of_a_tiff_are_named(tmp_path):
    shares = shares_of((50, 70), 2, np.uint8)
    path = write(tmp_path / "a.tif", shares, channels=(2, 0))
    with tifffile.TiffFile(path) as file:
        facts = json.loads(file.pages.first.description)["fullyconv"]
    assert facts == {"content": "probabilities", "channels": ["border", "background"], "one": 255}
    assert np.array_equal(tifffile.imread(path), shares)


def test_maps_keep_their_place_for_rasterio(tmp_path):
    labels, shares = labels_of((101, 75)), shares_of((64, 40), 2)
    with rasterio.open(write(tmp_path / "labels.tif", labels, georeference=PLACE)) as dataset:
        assert dataset.crs == rasterio.CRS.from_epsg(32633)
        assert tuple(dataset.transform)[:6] == PLACE.transform
        assert dataset.nodata == 255
        assert np.array_equal(dataset.read(1), labels)
        assert dataset.colormap(1)[1][:3] == TABLE.colors[1]
        assert dataset.tags()["CLASS_1"] == "cell"
    path = write(tmp_path / "shares.tif", shares, georeference=PLACE, channels=(0, 2))
    with rasterio.open(path) as dataset:
        assert dataset.descriptions == ("background", "border")
        assert dataset.nodata is None
        assert np.array_equal(np.moveaxis(dataset.read(), 0, -1), shares)
    for path in tmp_path.glob("*.tif"):
        with open_image(path) as source:
            assert rasterio.CRS.from_wkt(source.georeference.crs) == rasterio.CRS.from_epsg(32633)
            assert source.georeference.transform == PLACE.transform


def test_a_place_without_names_of_coordinates_is_kept(tmp_path):
    place = Georeference("", (1.0, 0.25, 3.0, 0.5, -2.0, 4.0), None)
    with open_image(write(tmp_path / "a.tif", labels_of((40, 40)), georeference=place)) as source:
        assert source.georeference == Georeference("", place.transform, 255.0)


def test_without_rasterio_a_map_is_refused_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MachineError, match=r"fullyconv\[geo\]"):
        open_output(tmp_path / "a.tif", size=(64, 64), classes=TABLE, georeference=PLACE)
    assert list(tmp_path.iterdir()) == []


# Zarr


def test_the_pyramid_and_the_names_of_a_zarr(tmp_path):
    labels = labels_of((150, 101))
    group = zarr.open_group(write(tmp_path / "a.zarr", labels), mode="r")
    ome = group.attrs["ome"]
    (image,) = ome["multiscales"]
    assert ome["version"] == "0.5"
    assert [axis["name"] for axis in image["axes"]] == ["y", "x"]
    expected = labels[..., None]
    for number, dataset in enumerate(image["datasets"]):
        level = group[dataset["path"]]
        assert level.chunks == (32, 32)
        assert np.array_equal(level[:], expected[..., 0])
        scale, *shift = dataset["coordinateTransformations"]
        assert scale == {"type": "scale", "scale": [2**number] * 2}
        assert [step["translation"] for step in shift] == ([[(2**number - 1) / 2] * 2] if number else [])
        expected = _majority(expected)
    assert level.shape == (19, 13)
    assert ome["image-label"]["colors"][1] == {"label-value": 1, "rgba": [*TABLE.colors[1], 255]}
    assert ome["image-label"]["properties"][2] == {"label-value": 2, "name": "border"}


def test_the_pyramid_of_probabilities(tmp_path):
    for dtype in (np.float16, np.uint8):
        shares = shares_of((70, 65), 2, dtype)
        path = write(tmp_path / f"{dtype.__name__}.zarr", shares, channels=(1, 2), georeference=PLACE)
        group = zarr.open_group(path, mode="r")
        assert [axis["name"] for axis in group.attrs["ome"]["multiscales"][0]["axes"]] == ["c", "y", "x"]
        assert [each["label"] for each in group.attrs["ome"]["omero"]["channels"]] == ["cell", "border"]
        assert group.attrs["georeference"]["transform"] == list(PLACE.transform)
        expected = shares
        for level in ("0", "1", "2"):
            assert np.array_equal(np.moveaxis(group[level][:], 0, -1), expected)
            expected = _mean(expected)
        with open_image(path) as source:
            assert source.levels == ((70, 65), (35, 33), (18, 17))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_four_pixels_become_their_majority_or_mean(height, width, seed):
    values = np.random.default_rng(seed).integers(0, 4, (height, width, 1)).astype(np.uint8)
    labels, means = _majority(values), _mean(values)
    for row, column in np.ndindex(labels.shape[:2]):
        rows = [2 * row, min(2 * row + 1, height - 1)]
        columns = [2 * column, min(2 * column + 1, width - 1)]
        four = [int(values[y, x, 0]) for y in rows for x in columns]
        most = max(four.count(value) for value in four)
        assert labels[row, column, 0] == next(value for value in four if four.count(value) == most)
        assert means[row, column, 0] == round(sum(four) / 4)


# Memory


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_the_memory_does_not_grow_with_the_height(tmp_path, suffix):
    peaks = []
    band = labels_of((64, 256))
    for count in (4, 24):
        tracemalloc.start()
        try:
            path = tmp_path / f"{count}{suffix}"
            with open_output(path, size=(64 * count, 256), classes=TABLE, chunk=64) as output:
                for number in range(count):
                    output.write_rows(64 * number, band)
                output.finish()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2e5, "20 bands of 16 KB more"
