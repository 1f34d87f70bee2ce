"""Windows: parts of the whole for every format, decoded sparingly, in bounded memory, by many threads."""

import io
import struct
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fullyconv.errors import ImageError
from fullyconv.images import find_images, open_image, probe, read_image, write_image
from fullyconv.images._cache import TileCache
from fullyconv.images._tiff_tiles import _reader

RNG = np.random.default_rng(11)
HEIGHT, WIDTH = 150, 117
BYTES = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))[..., None] * (1, 2, 3) % 251).astype(np.uint8)
BYTES[20:90, 30:70] = RNG.integers(0, 256, (70, 40, 3))
SHORTS = RNG.integers(0, 65536, (HEIGHT, WIDTH, 5)).astype(np.uint16)
FLOATS = RNG.normal(size=(HEIGHT, WIDTH, 2)).astype(np.float32)
INDICES = (BYTES[..., 0] % 7).astype(np.uint8)
PALETTE = RNG.integers(0, 256, (7, 3)).astype(np.uint8)


def tiff(array, **options):
    return lambda path: tifffile.imwrite(path, array, **options)


def pillow(image, kind, **options):
    return lambda path: image.save(path, kind, **options)


def palette(path):
    image = Image.frombytes("P", INDICES.shape[::-1], INDICES.tobytes())
    image.putpalette(PALETTE.tobytes())
    image.save(path, "PNG")


def tiff_palette(path):
    colormap = np.zeros((3, 256), np.uint16)
    colormap[:, :7] = PALETTE.T.astype(np.uint16) * 257
    tifffile.imwrite(
        path, INDICES, photometric="palette", colormap=colormap, tile=(32, 48), compression="zlib"
    )


def ome(array, axes, **options):
    def write(path):
        with tifffile.TiffWriter(path, ome=True, bigtiff=True) as writer:
            writer.write(array, metadata={"axes": axes}, **options)

    return write


def pyramid(path):
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"photometric": "rgb", "tile": (32, 48), "compression": "zlib"}
        writer.write(BYTES, subifds=2, metadata={"axes": "YXS"}, **options)
        writer.write(BYTES[::2, ::2], subfiletype=1, **options)
        writer.write(BYTES[::4, ::4], subfiletype=1, **options)


def slide(path):
    """Write pages as Aperio's scanners do: the image, a thumbnail, smaller copies, the label."""
    options = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        tiles = {"tile": (32, 48), "compression": "jpeg2000", "compressionargs": {"reversible": True}}
        writer.write(BYTES, description="Aperio Image Library v12\n117x150|AppMag = 20", **tiles, **options)
        writer.write(BYTES[::5, ::5], description="Aperio Image Library v12\nthumbnail", **options)
        writer.write(BYTES[::2, ::2], description="Aperio Image Library v12\nlevel", **tiles, **options)
        writer.write(
            BYTES[:9, :9], description="Aperio Image Library v12\nlabel 9x9", subfiletype=1, **options
        )


def array(values, chunks, version, **options):
    def write(path):
        made = zarr.create_array(
            path, shape=values.shape, chunks=chunks, dtype=values.dtype, zarr_format=version, **options
        )
        made[...] = values

    return write


def ome_zarr(version):
    def write(path):
        group = zarr.create_group(path, zarr_format={"0.4": 2, "0.5": 3}[version])
        values = np.moveaxis(BYTES, -1, 0)[None, :, None]
        for level in range(2):
            part = values[..., :: 2**level, :: 2**level]
            group.create_array(str(level), data=part, chunks=(1, 1, 1, 40, 40))
        axes = [{"name": name, "type": "space"} for name in "tczyx"]
        images = [{"version": version, "axes": axes, "datasets": [{"path": "0"}, {"path": "1"}]}]
        group.attrs.update(
            {"multiscales": images}
            if version == "0.4"
            else {"ome": {"version": version, "multiscales": images}}
        )

    return write


GRAY = {"photometric": "minisblack"}
RGB = {"photometric": "rgb"}
PLANAR = {"photometric": "minisblack", "planarconfig": "separate"}
PLANES = np.moveaxis(SHORTS, -1, 0)
FORMATS = {  # name -> (suffix, how to write it, values or None where compression loses some)
    "png": (".png", pillow(Image.fromarray(BYTES), "PNG"), BYTES),
    "png palette": (".png", palette, PALETTE[INDICES]),
    "png 1 bit": (".png", pillow(Image.fromarray(INDICES > 3), "PNG"), ((INDICES > 3) * 255)[..., None]),
    "jpeg": (".jpg", pillow(Image.fromarray(BYTES), "JPEG"), None),
    "bmp": (".bmp", pillow(Image.fromarray(BYTES), "BMP"), BYTES),
    "webp": (".webp", pillow(Image.fromarray(BYTES), "WEBP", lossless=True), BYTES),
    "gif": (".gif", pillow(Image.fromarray(INDICES), "GIF"), None),
    "tiff one piece": (".tif", tiff(BYTES, **RGB), BYTES),
    "tiff planes one piece": (".tif", tiff(PLANES, byteorder=">", **PLANAR), SHORTS),
    "tiff strips": (".tif", tiff(BYTES, compression="zlib", rowsperstrip=7, **RGB), BYTES),
    "tiff planar strips": (".tif", tiff(PLANES, compression="lzw", rowsperstrip=11, **PLANAR), SHORTS),
    "tiff tiles": (".tif", tiff(BYTES, tile=(32, 48), **RGB), BYTES),
    "tiff lzw predictor": (
        ".tif",
        tiff(SHORTS, planarconfig="contig", tile=(64, 16), compression="lzw", predictor=True, **GRAY),
        SHORTS,
    ),
    "tiff zstd planar tiles": (
        ".tif",
        tiff(np.moveaxis(FLOATS, -1, 0), tile=(48, 32), compression="zstd", predictor=3, **PLANAR),
        FLOATS,
    ),
    "tiff jpeg tiles": (".tif", tiff(BYTES, photometric="ycbcr", tile=(32, 32), compression="jpeg"), None),
    "tiff jpeg 2000": (".tif", tiff(BYTES, tile=(64, 64), compression="jpeg2000", **RGB), BYTES),
    "tiff palette tiles": (".tif", tiff_palette, PALETTE[INDICES]),
    "tiff bits": (
        ".tif",
        tiff(INDICES > 3, photometric="miniswhite", compression="zlib", rowsperstrip=9),
        ((INDICES <= 3) * 255)[..., None],
    ),
    "tiff white is zero": (
        ".tif",
        tiff(INDICES, photometric="miniswhite", tile=(32, 32)),
        (255 - INDICES)[..., None],
    ),
    "bigtiff": (".tif", tiff(FLOATS, bigtiff=True, planarconfig="contig", tile=(32, 32), **GRAY), FLOATS),
    "ome-tiff pages": (".ome.tif", ome(PLANES, "CYX", tile=(32, 32), compression="zlib", **GRAY), SHORTS),
    "ome-tiff one piece": (".ome.tif", ome(PLANES, "CYX", **GRAY), SHORTS),
    "ome-tiff pyramid": (".ome.tif", pyramid, BYTES),
    "imagej channels": (".tif", tiff(PLANES, imagej=True, metadata={"axes": "CYX"}), SHORTS),
    "slide": (".svs", slide, BYTES),
    "zarr 2": (".zarr", array(BYTES, (32, 40, 3), 2), BYTES),
    "zarr 3 channels first": (".zarr", array(PLANES, (1, 50, 32), 3), SHORTS),
    "zarr 3 sharded": (".zarr", array(FLOATS[..., 0], (25, 39), 3, shards=(150, 117)), FLOATS[..., :1]),
    "zarr named axes": (
        ".zarr",
        array(SHORTS.transpose(1, 2, 0), (40, 5, 40), 3, dimension_names=["x", "band", "y"]),
        SHORTS,
    ),
    "ome-zarr 0.4": (".zarr", ome_zarr("0.4"), BYTES),
    "ome-zarr 0.5": (".zarr", ome_zarr("0.5"), BYTES),
}

SIDES = st.tuples(st.integers(0, 160), st.integers(0, 160)).map(sorted)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    made = {}
    for name, (suffix, write, _) in FORMATS.items():
        made[name] = folder / f"{name.replace(' ', '_')}{suffix}"
        write(made[name])
    return made


@pytest.mark.parametrize("name", FORMATS)
class TestContract:
    def test_the_whole_is_what_was_written(self, name, files):
        values = FORMATS[name][2]
        whole = read_image(files[name])
        if values is not None:
            assert np.array_equal(whole, values)
        info = probe(files[name])
        with open_image(files[name]) as source:
            assert source.path == files[name]
            assert (source.size, source.channels, source.dtype) == (
                whole.shape[:2],
                whole.shape[2],
                whole.dtype,
            )
            assert (info.size, info.channels, info.dtype) == (source.size, source.channels, source.dtype.name)
            assert source.levels[0] == source.size
            assert all(0 < part <= side for part, side in zip(source.chunk, source.size, strict=True))
            assert (source.georeference, source.hint) == (None, "")
            everything = source.read()
        assert np.array_equal(everything, whole)
        assert everything.flags.c_contiguous
        assert everything.flags.writeable

    @settings(deadline=None, max_examples=15)
    @given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4), st.sampled_from([0, 5000, 2**28]))
    def test_windows_are_parts_of_the_whole(self, name, files, windows, cache):
        whole = read_image(files[name])
        with open_image(files[name], cache=cache) as source:
            for (top, bottom), (left, right) in windows:
                window = source.read(slice(top, bottom), slice(left, right))
                assert window.dtype == whole.dtype
                assert np.array_equal(window, whole[top:bottom, left:right])

    def test_windows_belong_to_who_asked(self, name, files):
        with open_image(files[name]) as source:
            first = source.read(slice(5, 30), slice(3, 40))
            kept = first.copy()
            first[:] = 0
            assert np.array_equal(source.read(slice(5, 30), slice(3, 40)), kept)

    def test_slices_mean_what_they_mean_for_arrays(self, name, files):
        whole = read_image(files[name])
        with open_image(files[name]) as source:
            for rows, columns in [
                (np.s_[-20:], np.s_[:-90]),
                (np.s_[40:10], np.s_[:]),
                (np.s_[999:], np.s_[3:5]),
            ]:
                assert np.array_equal(source.read(rows, columns), whole[rows, columns])
            with pytest.raises(ImageError, match="step 2"):
                source.read(np.s_[::2], np.s_[:])

    def test_find_images_lists_it(self, name, files):
        assert find_images(files[name]) == [files[name]]
        assert files[name] in find_images(files[name].parent)
        assert files[name] in find_images(str(files[name].parent / "*"))

    def test_damage_raises_nothing_but_image_errors(self, name, files, tmp_path):
        source = files[name]
        parts = [file for file in source.rglob("*") if file.is_file()] if source.is_dir() else [source]
        rng = np.random.default_rng(3)
        refused = 0
        for number in range(40):
            target = tmp_path / f"{number}" / source.name
            victim = parts[rng.integers(len(parts))]
            for file in parts:
                copy = target / file.relative_to(source) if source.is_dir() else target
                copy.parent.mkdir(parents=True, exist_ok=True)
                data = bytearray(file.read_bytes())
                if file == victim:
                    if number % 2:
                        del data[rng.integers(len(data)) :]
                    else:
                        for place in rng.integers(0, len(data), 4):
                            data[place] = rng.integers(256)
                copy.write_bytes(data)
            try:
                with open_image(target) as image:
                    image.read(slice(0, 2000), slice(0, 2000))
            except ImageError as error:
                refused += str(target) in error.given
        assert refused or name in {"bmp"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_windows_are_upright(tmp_path, orientation, kind):
    path = tmp_path / "turned"
    exif = Image.Exif()
    exif[274] = orientation
    if kind == "TIFF":
        extra = [(274, 3, 1, orientation, True)]
        tifffile.imwrite(path, BYTES, photometric="rgb", tile=(32, 48), extratags=extra)
    else:
        Image.fromarray(BYTES).save(path, kind, exif=exif)
    whole = read_image(path)
    with open_image(path) as source:
        assert source.size == whole.shape[:2]
        if kind == "TIFF":
            assert source.chunk == ((32, 48) if orientation < 5 else (48, 32))
        for top, bottom, left, right in [(0, 160, 0, 160), (3, 20, 70, 100), (100, 117, 0, 9)]:
            window = source.read(slice(top, bottom), slice(left, right))
            assert np.array_equal(window, whole[top:bottom, left:right])


def test_chunks_and_levels(files):
    chunks = {}
    for name in (
        "png",
        "tiff strips",
        "tiff tiles",
        "ome-tiff pyramid",
        "slide",
        "zarr 3 sharded",
        "ome-zarr 0.5",
    ):
        with open_image(files[name]) as source:
            chunks[name] = source.chunk, source.levels[1:]
    half, quarter = (HEIGHT // 2, WIDTH // 2 + 1), (-(-HEIGHT // 4), -(-WIDTH // 4))
    assert chunks == {
        "png": ((HEIGHT, WIDTH), ()),
        "tiff strips": ((HEIGHT, WIDTH), ()),
        "tiff tiles": ((32, 48), ()),
        "ome-tiff pyramid": ((32, 48), (half, quarter)),
        "slide": ((32, 48), (half,)),
        "zarr 3 sharded": ((HEIGHT, WIDTH), ()),
        "ome-zarr 0.5": ((HEIGHT, WIDTH), (half,)),
    }


def test_long_lines_in_one_piece_are_read_in_part(tmp_path):
    path = tmp_path / "long.tif"
    planes = RNG.integers(0, 65536, (2, 300, 9000)).astype(np.uint16)
    tifffile.imwrite(path, planes, planarconfig="separate", photometric="minisblack", byteorder=">")
    with open_image(path, cache=0) as source:
        assert source.chunk == (256, 1024)
        for rows, columns in [
            (np.s_[250:270], np.s_[1000:1030]),
            (np.s_[290:], np.s_[8990:]),
            (np.s_[:], np.s_[:]),
        ]:
            assert np.array_equal(source.read(rows, columns), np.moveaxis(planes, 0, -1)[rows, columns])


# Only what is needed


def counted(source):
    asked = []
    decode = source._tiles.decode

    def counting(row, column):
        asked.append((row, column))
        return decode(row, column)

    object.__setattr__(source._tiles, "decode", counting)
    return asked


def test_only_the_tiles_under_a_window_are_decoded_and_once(files):
    with open_image(files["tiff tiles"]) as source:
        asked = counted(source)
        source.read(slice(32, 64), slice(48, 96))
        assert asked == [(1, 1)]
        source.read(slice(31, 65), slice(50, 97))
        assert sorted(asked) == [(row, column) for row in (0, 1, 2) for column in (1, 2)]
        source.read(slice(0, 0), slice(0, 5))
        assert len(asked) == 6
    with open_image(files["tiff tiles"], cache=0) as source:
        asked = counted(source)
        for _ in range(2):
            source.read(slice(0, 64), slice(0, 10))
        assert asked == [(0, 0), (1, 0)] * 2


def test_many_threads_decode_each_strip_once(files):
    whole = read_image(files["tiff strips"])
    with open_image(files["tiff strips"]) as source, ThreadPoolExecutor(8) as pool:
        asked = counted(source)
        windows = [(row, column) for row in range(0, 140, 13) for column in range(0, 110, 17)] * 3
        for (row, column), window in zip(
            windows,
            pool.map(lambda at: source.read(slice(at[0], at[0] + 20), slice(at[1], at[1] + 30)), windows),
            strict=True,
        ):
            assert np.array_equal(window, whole[row : row + 20, column : column + 30])
        assert len(asked) == len(set(asked))


def test_threads_do_not_read_from_each_other_s_places():
    class SlowFile(io.BytesIO):
        def seek(self, place, whence=io.SEEK_SET):
            found = super().seek(place, whence)
            time.sleep(0.001)
            return found

    data = RNG.integers(0, 256, 1000, np.uint8).tobytes()
    read = _reader(SlowFile(data))
    with ThreadPoolExecutor(8) as pool:
        for start, found in zip(range(90), pool.map(lambda start: read(start, 10), range(90)), strict=True):
            assert found == data[start : start + 10]


def test_the_cache_keeps_what_was_used_last_within_its_limit():
    cache, made = TileCache(250), []

    def decode(row, column):
        made.append(column)
        return np.zeros(100, np.uint8) if row == 0 else None

    for column in (0, 1, 0, 2, 0, 1, 7, 7):
        cache.get((0, column), decode)
    assert made == [0, 1, 2, 1, 7]
    assert cache._bytes == 200
    large = TileCache(10)
    assert large.get((0, 0), decode) is large.get((0, 0), decode)


def test_tiles_that_a_sparse_file_lacks_take_no_room():
    cache, made = TileCache(250), []

    def decode(row, column):
        made.append(column)

    for column in (0, 1, 0):
        assert cache.get((0, column), decode) is None
    assert made == [0, 1, 0]  # asked for anew, which is free
    assert not cache._held


def test_a_tile_that_fails_fails_for_all_who_wait_and_is_tried_again():
    cache, started, go = TileCache(1000), threading.Event(), threading.Event()

    def fail(row, column):
        started.set()
        go.wait(10)
        raise ImageError("damaged", "whole", "copy")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, (0, 0), fail)
        started.wait(10)
        second = pool.submit(cache.get, (0, 0), fail)
        go.set()
        for waiting in (first, second):
            with pytest.raises(ImageError):
                waiting.result(10)
    assert cache.get((0, 0), lambda *_: np.ones(1)) == 1


# Files larger than memory


def sparse_bigtiff(path, side, tile=256, strips=False, filled=()):
    """Write the directory of a BigTIFF; tiles that are not ``filled`` have no place in the file."""
    across = -(-side // tile)
    count = across if strips else across**2
    data = imagecodecs.deflate_encode(np.full((tile, tile), 7, np.uint8).tobytes()) if filled else b""
    shape = [(278, 4, 1, side)] if strips else [(322, 4, 1, tile), (323, 4, 1, tile)]
    place, length = (273, 279) if strips else (324, 325)
    entries = sorted([
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
        *shape, (place, 16, count, None), (length, 16, count, None),
    ])  # fmt: skip
    tables = 16 + 8 + 20 * len(entries) + 8
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + struct.pack("<Q", len(entries)))
        for tag, kind, number, value in entries:
            if value is None:
                value = tables if tag == place else tables + 8 * count
            file.write(struct.pack("<HHQQ", tag, kind, number, value))
        file.write(bytes(8))
        file.truncate(tables + 16 * count)
        start = tables + 16 * count
        for index in filled:
            file.seek(tables + 8 * index)
            file.write(struct.pack("<Q", start))
            file.seek(tables + 8 * (count + index))
            file.write(struct.pack("<Q", len(data)))
        file.seek(start)
        file.write(data)


def test_missing_tiles_are_zeros_and_take_no_memory(tmp_path):
    path = tmp_path / "sparse.tif"
    sparse_bigtiff(path, 65536, filled=[5, 256 * 255 + 255])
    assert path.stat().st_size < 2**21
    tracemalloc.start()
    try:
        with open_image(path) as source:
            assert (source.size, source.channels, source.chunk) == ((65536, 65536), 1, (256, 256))
            assert not source.read(slice(30000, 31000), slice(50000, 51000)).any()
            assert (source.read(slice(0, 256), slice(5 * 256, 6 * 256)) == 7).all()
            window = source.read(slice(-300, None), slice(-300, None))
            assert window[:44].sum() == window[:, :44].sum() == 0
            assert (window[44:, 44:] == 7).all()
            for row in range(0, 65536, 4096):
                source.read(slice(row, row + 1024), slice(row, row + 1024))
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40e6, "a 4.3-gigapixel image"
    with pytest.raises(ImageError, match="4294967296 pixels"):
        read_image(path)


def test_the_memory_does_not_grow_with_the_image(tmp_path):
    peaks = []
    for side in (8192, 65536):
        path = tmp_path / f"{side}.tif"
        filled = range(0, (side // 512) ** 2, 7)
        sparse_bigtiff(path, side, tile=512, filled=filled)
        tracemalloc.start()
        try:
            with open_image(path, cache=2**22) as source:
                for column in range(0, 8192, 1024):
                    source.read(slice(0, 1024), slice(column, column + 1024))
                peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 8e6


def test_missing_tiles_hold_nodata(tmp_path):
    path = tmp_path / "nodata.tif"
    values = np.arange(96 * 64, dtype=np.float32).reshape(96, 64)

    def tiles():
        yield values[:32, :32].copy()
        yield None
        yield from (
            values[row : row + 32, column : column + 32].copy() for row in (32, 64) for column in (0, 32)
        )

    tifffile.imwrite(
        path,
        tiles(),
        shape=values.shape,
        dtype=values.dtype,
        tile=(32, 32),
        extratags=[(42113, 2, 0, "-9999", True)],
    )
    whole = read_image(path)[..., 0]
    assert (whole[:32, 32:] == -9999).all()
    assert np.array_equal(whole[32:], values[32:])
    with open_image(path) as source:
        assert np.array_equal(source.read()[..., 0], whole)


def test_a_plane_that_lacks_a_tile_holds_zeros(tmp_path):
    path = tmp_path / "planes.tif"
    planes = np.moveaxis(BYTES[:64, :64, :2], -1, 0)

    def tiles():
        for number in range(8):
            row, column = number % 4 // 2 * 32, number % 2 * 32
            yield None if number == 5 else planes[number // 4, row : row + 32, column : column + 32].copy()

    tifffile.imwrite(
        path,
        tiles(),
        shape=planes.shape,
        dtype=np.uint8,
        tile=(32, 32),
        planarconfig="separate",
        photometric="minisblack",
    )
    with open_image(path) as source:
        window = source.read()
    assert np.array_equal(window, read_image(path))
    assert not window[:32, 32:, 1].any()
    assert np.array_equal(window[..., 0], planes[0])


def test_bombs_in_headers_are_refused_at_once(tmp_path):
    path = tmp_path / "bomb.tif"
    sparse_bigtiff(path, 65536, tile=65536)
    with pytest.raises(ImageError, match=r"4294967296 pixels.*at most"):
        open_image(path)
    sparse_bigtiff(path, 65536, tile=65536, strips=True)
    with pytest.raises(ImageError, match=r"4294967296 pixels.*at most"):
        open_image(path)
    zarr.create_array(tmp_path / "a.zarr", shape=(10**6, 10**6), chunks=(10**6, 10**6), dtype="u1")
    with pytest.raises(ImageError, match="1000000000000 pixels"):
        open_image(tmp_path / "a.zarr")
    large = tmp_path / "large.png"
    Image.new("L", (100, 100)).save(large)
    with pytest.raises(ImageError, match="100×100 = 10000 pixels"):
        open_image(large, max_pixels=9999)


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000"])
def test_a_tile_that_claims_more_than_its_page_is_refused(tmp_path, codec):
    path = tmp_path / "tile.tif"
    tifffile.imwrite(path, BYTES, photometric="rgb", tile=(64, 64), compression=codec)
    data = bytearray(path.read_bytes())
    if codec == "jpeg":
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", 60000, 60000)
    else:
        start = data.index(b"\xff\x4f\xff\x51") + 8
        data[start : start + 8] = struct.pack(">II", 60000, 60000)
    path.write_bytes(data)
    with (
        open_image(path) as source,
        pytest.raises(ImageError, match=r"tile at row 0, column 0: tiles of 3600000000"),
    ):
        source.read()
    with pytest.raises(ImageError, match="tiles of 3600000000"):
        read_image(path)


def test_a_tile_that_claims_to_be_longer_than_the_file_is_refused(tmp_path):
    path = tmp_path / "long.tif"
    tifffile.imwrite(path, BYTES, photometric="rgb", tile=(160, 128), compression="zlib", bigtiff=True)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["TileByteCounts"].overwrite(2**62)
    with open_image(path) as source, pytest.raises(ImageError, match=r"cut off: \d+ bytes of 46116\d+"):
        source.read()


def test_a_stream_of_other_bits_than_its_page_is_refused(tmp_path):
    path = tmp_path / "bits.tif"
    tifffile.imwrite(path, SHORTS[..., 0], tile=(64, 64), compression="jpeg2000")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["BitsPerSample"].overwrite(8)
    with open_image(path) as source, pytest.raises(ImageError, match="stream of 16 bits on a page of 8"):
        source.read()
    with pytest.raises(ImageError, match="stream of 16 bits on a page of 8"):
        read_image(path)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((32, 48, 2), np.uint8), ((32, 48, 3), np.uint16), ((31, 48, 3), np.uint8), ((32, 47, 3), np.uint8)],
    ids=["channels", "type", "height", "width"],
)
def test_a_tile_that_is_not_what_the_header_says_is_refused(files, shape, dtype):
    with open_image(files["tiff tiles"]) as source:
        object.__setattr__(source._tiles, "decode", lambda *_: np.zeros(shape, dtype))
        with pytest.raises(ImageError, match=r"tile at row 0, column 0: damaged: the header says"):
            source.read()


def test_damage_names_file_and_tile_and_spares_the_others(files, tmp_path):
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(path, BYTES, photometric="rgb", tile=(32, 48), compression="zlib")
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[0].dataoffsets[4], file.pages[0].databytecounts[4]
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    with open_image(path) as source:
        assert np.array_equal(source.read(slice(0, 32), slice(0, 96)), BYTES[:32, :96])
        with pytest.raises(ImageError, match=r"damaged\.tif: tile at row 32, column 48: damaged or cut off"):
            source.read(slice(40, 41), slice(50, 51))
        assert np.array_equal(source.read(slice(64, 150)), BYTES[64:])
    path.write_bytes(files["tiff tiles"].read_bytes()[:-3000])
    with (
        open_image(path) as source,
        pytest.raises(ImageError, match=r"damaged\.tif: tile at row 128.*cut off: \d+ bytes of"),
    ):
        source.read()


def test_what_is_no_image_is_named(tmp_path):
    group = zarr.create_group(tmp_path / "group.zarr")
    group.create_array("pixels", shape=(4, 4), dtype="u1")
    (tmp_path / "empty.tif").touch()
    (tmp_path / "folder").mkdir()
    for name, dtype, shape, axes in [
        ("time", "u1", (3, 8, 8), ["t", "y", "x"]),
        ("rows", "u1", (8, 8), ["y", "z"]),
        ("cube", "u1", (8, 8, 8), None),
        ("complex", "c8", (8, 8), None),
        ("four", "u1", (1, 1, 8, 8), None),
    ]:
        zarr.create_array(tmp_path / f"{name}.zarr", shape=shape, dtype=dtype, dimension_names=axes)
    for name, words in [
        ("gone.tif", "no such file"),
        ("empty.tif", "empty file"),
        ("folder", "not a file"),
        ("group.zarr", r"\['pixels'\]"),
        ("time.zarr", "3 planes along axis t"),
        ("rows.zarr", r"axes \['y', 'z'\]"),
        ("cube.zarr", "axes have no names"),
        ("complex.zarr", "complex64"),
        ("four.zarr", "axes have no names"),
    ]:
        for read in (open_image, read_image, probe):
            with pytest.raises(ImageError, match=f"{name}.*{words}"):
                read(tmp_path / name)


def test_stacks_in_ome_tiff_are_refused(tmp_path):
    stack = np.zeros((3, 40, 50), np.uint8)
    for axes in ("ZYX", "TYX"):
        ome(stack, axes, photometric="minisblack")(tmp_path / "stack.ome.tif")
        with pytest.raises(ImageError, match="stack of 3 pages"):
            open_image(tmp_path / "stack.ome.tif")
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as writer:
        for _ in range(2):
            writer.write(stack[0], metadata={"axes": "YX"})
    with pytest.raises(ImageError, match="stack of 2 pages"):
        read_image(tmp_path / "two.ome.tif")


# Maps


TRANSFORM = (0.5, 0.0, 300000.0, 0.0, -0.5, 5000000.0)


@pytest.fixture
def geotiff(tmp_path):
    path = tmp_path / "map.tif"
    profile = {"driver": "GTiff", "height": 100, "width": 90, "count": 2, "dtype": "int16", "tiled": True}
    profile |= {
        "blockxsize": 32,
        "blockysize": 48,
        "interleave": "band",
        "compress": "deflate",
        "predictor": 2,
    }
    with rasterio.open(
        path, "w", crs="EPSG:32633", transform=rasterio.Affine(*TRANSFORM), nodata=-1, **profile
    ) as dataset:
        dataset.write(np.arange(2 * 100 * 90, dtype=np.int16).reshape(2, 100, 90))
    return path


def test_maps_keep_their_place(geotiff):
    with open_image(geotiff) as source, rasterio.open(geotiff) as dataset:
        assert source.georeference.transform == TRANSFORM
        assert source.georeference.nodata == -1
        assert rasterio.CRS.from_wkt(source.georeference.crs) == rasterio.CRS.from_epsg(32633)
        assert source.chunk == (48, 32)
        window = rasterio.windows.Window.from_slices((20, 77), (10, 80))
        expected = np.moveaxis(dataset.read(window=window), 0, -1)
        assert np.array_equal(source.read(slice(20, 77), slice(10, 80)), expected)


def test_without_rasterio_maps_are_pixels_and_a_hint(geotiff, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with open_image(geotiff) as source:
        assert source.georeference is None
        assert "pip install 'fullyconv[geo]'" in source.hint
        assert source.read(slice(0, 1), slice(0, 3))[0, :, 0].tolist() == [0, 1, 2]


def test_a_place_that_cannot_be_read_leaves_the_pixels(geotiff):
    data = geotiff.read_bytes()
    with tifffile.TiffFile(geotiff) as file:
        keys = file.pages.first.tags[33550]
    geotiff.write_bytes(
        data[: keys.valueoffset] + struct.pack("<3d", 0, 0, 0) + data[keys.valueoffset + 24 :]
    )
    with open_image(geotiff) as source:
        assert source.read(slice(0, 1), slice(0, 3))[0, :, 0].tolist() == [0, 1, 2]


# Recognising files


def test_fingerprints_tell_files_and_their_changes_apart(files, tmp_path):
    import os

    def fingerprint(path):
        with open_image(path) as source:
            return source.fingerprint()

    path = tmp_path / "large.tif"
    values = RNG.integers(0, 256, (1200, 1200), np.uint8)
    write_image(path, values)
    os.utime(path, ns=(1, 1))
    first = fingerprint(path)
    assert fingerprint(path) == first
    os.utime(path, ns=(2, 2))
    assert fingerprint(path) != first
    os.utime(path, ns=(1, 1))
    assert fingerprint(path) == first
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\0\1\2")
    os.utime(path, ns=(1, 1))
    assert fingerprint(path) != first
    store = tmp_path / "a.zarr"
    array(BYTES, (32, 40, 3), 3)(store)
    before = fingerprint(store)
    assert fingerprint(store) == before
    chunk = next(file for file in store.rglob("*") if file.is_file() and file.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes() + b"\0")
    assert fingerprint(store) != before


def test_closing_lets_go_of_the_file(files):
    source = open_image(files["tiff tiles"])
    source.close()
    with pytest.raises(ImageError, match="closed"):
        source.read()
