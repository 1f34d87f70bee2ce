"""Reading: one contract over every format, then the traps of each, with Pillow and arithmetic as oracles."""

import io
import struct
import zlib
from contextlib import suppress

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fullyconv.errors import ImageError, InputError
from fullyconv.images import IMAGE_SUFFIXES, MAX_PIXELS, probe, read_image, read_mask
from fullyconv.images._formats import FORMATS
from fullyconv.images._stored import exif_orientation

RNG = np.random.default_rng(7)
COLORS = RNG.integers(0, 256, (13, 17, 3), np.uint8)
INDICES = RNG.integers(0, 5, (13, 17), np.uint8)
PALETTE = RNG.integers(0, 256, (5, 3), np.uint8)


def pillow(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encoded(array):
    return imagecodecs.png_encode(np.ascontiguousarray(array))


def indexed(indices=INDICES, palette=PALETTE):
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(palette.tobytes())
    return image


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, color, rows, *extra):
    """Write a PNG by hand: ``rows`` are the packed samples of each row."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


def exif(orientation, order="big"):
    mark, code = (b"MM\0*", ">") if order == "big" else (b"II*\0", "<")
    return mark + struct.pack(code + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


WHOLE = {  # name of a case -> (bytes, format, lossless values or None)
    "png": (encoded(COLORS), "PNG", COLORS),
    "png gray": (encoded(COLORS[..., 0]), "PNG", COLORS[..., :1]),
    "png palette": (pillow(indexed(), "PNG"), "PNG", PALETTE[INDICES]),
    "jpeg": (pillow(Image.fromarray(COLORS), "JPEG"), "JPEG", None),
    "jpeg gray": (pillow(Image.fromarray(COLORS[..., 0]), "JPEG"), "JPEG", None),
    "tiff": (tiff(COLORS, photometric="rgb"), "TIFF", COLORS),
    "tiff deflate strips": (
        tiff(COLORS, photometric="rgb", compression="zlib", rowsperstrip=3),
        "TIFF",
        COLORS,
    ),
    "tiff lzw tiles": (tiff(COLORS, photometric="rgb", compression="lzw", tile=(16, 16)), "TIFF", COLORS),
    "tiff jpeg": (tiff(COLORS, photometric="rgb", compression="jpeg"), "TIFF", None),
    "bigtiff": (tiff(COLORS, photometric="rgb", bigtiff=True), "TIFF", COLORS),
    "tiff big-endian": (tiff(COLORS.astype(np.uint16), photometric="rgb", byteorder=">"), "TIFF", COLORS),
    "bmp": (pillow(Image.fromarray(COLORS), "BMP"), "BMP", COLORS),
    "bmp palette": (pillow(indexed(), "BMP"), "BMP", PALETTE[INDICES]),
    "webp": (pillow(Image.fromarray(COLORS), "WEBP", lossless=True), "WebP", COLORS),
    "webp lossy": (pillow(Image.fromarray(COLORS), "WEBP"), "WebP", None),
    "gif": (pillow(indexed(), "GIF"), "GIF", PALETTE[INDICES]),
}


@pytest.fixture
def read(tmp_path):
    def read_bytes(data, reader=read_image, **options):
        path = tmp_path / "file.bin"
        path.write_bytes(data)
        return reader(path, **options)

    return read_bytes


def test_every_format_has_a_case():
    assert {kind for _, kind, _ in WHOLE.values()} == {each.name for each in FORMATS}
    assert {".png", ".jpg", ".jpeg", ".tif", ".tiff"} <= IMAGE_SUFFIXES


@pytest.mark.parametrize("case", WHOLE)
class TestContract:
    def test_content_decides_and_values_are_kept(self, case, read):
        data, kind, values = WHOLE[case]
        image = read(data)
        if values is None:
            values = np.array(Image.open(io.BytesIO(data))).reshape(13, 17, -1)
        assert np.array_equal(image, values)
        assert image.flags.c_contiguous
        info = read(data, probe)
        assert (info.size, info.channels, info.dtype) == (image.shape[:2], image.shape[2], image.dtype.name)
        assert (info.format, info.palette) == (kind, case in ("png palette", "bmp palette", "gif"))

    def test_a_cut_off_file_is_refused_or_lacks_no_pixel(self, case, read, tmp_path):
        data, _, _ = WHOLE[case]
        whole = read(data)
        refused = 0
        for end in [*range(0, len(data) - 8, 1 + len(data) // 60), *range(len(data) - 8, len(data))]:
            try:
                image = read(data[:end])
            except ImageError as error:
                refused += str(tmp_path / "file.bin") in error.given
            else:
                assert np.array_equal(image, whole)
        assert refused >= 50

    def test_damage_raises_nothing_but_image_errors(self, case, read):
        data, _, _ = WHOLE[case]
        rng = np.random.default_rng(3)
        for _ in range(60):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), rng.integers(1, 5)):
                damaged[place] = rng.integers(256)
            for reader in (read_image, read_mask, probe):
                with suppress(ImageError):
                    read(bytes(damaged), reader)

    def test_a_limit_of_pixels_holds_before_decoding(self, case, read):
        data, _, _ = WHOLE[case]
        assert read(data, max_pixels=13 * 17).shape[:2] == (13, 17)
        for reader in (read_image, read_mask):
            with pytest.raises(ImageError, match=r"13×17 = 221 pixels.* 220 "):
                read(data, reader, max_pixels=220)


# Bombs, and what is no image


def test_bombs_are_refused_unread_with_size_and_limit(read):
    rest = bytes(1000)
    bmp = struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 30000, 30000, 1, 24, 0, 0, 0, 0, 0, 0)
    gif = struct.pack("<HHBBBcHHHHBB", 60000, 60000, 0, 0, 0, b",", 0, 0, 60000, 60000, 0, 8)
    width, height = struct.pack("<HHII", 256, 4, 1, 4), struct.pack("<HHII", 256, 4, 1, 1 << 31)
    bombs = [
        png(100_000, 100_000, 8, 2, [rest]),
        b"BM" + bmp + rest,
        b"GIF89a" + gif + rest,
        tiff(np.zeros((4, 4), np.uint8)).replace(width, height),
    ]
    for bomb in bombs:
        with pytest.raises(ImageError, match=rf"pixels.*{MAX_PIXELS}"):
            read(bomb)
    small, large = struct.pack("<HHII", 323, 4, 1, 16), struct.pack("<HHII", 323, 4, 1, 1 << 30)
    tiled = tiff(COLORS, photometric="rgb", compression="lzw", tile=(16, 16))
    tiled = tiled.replace(small, large).replace(struct.pack("<HHIHH", 323, 3, 1, 16, 0), large)
    with pytest.raises(ImageError, match=f"tiles of {16 << 30} pixels"):
        read(tiled)
    jpeg = tiff(COLORS, photometric="rgb", compression="jpeg")
    start = jpeg.index(b"\xff\xc0") + 5
    with pytest.raises(ImageError, match=f"tiles of {60_000**2} pixels"):
        read(jpeg[:start] + struct.pack(">HH", 60_000, 60_000) + jpeg[start + 4 :])


def test_tiff_codecs_with_headers_of_their_own_are_refused(read):
    with pytest.raises(ImageError, match=r"compressed by PNG.*LZW"):
        read(tiff(COLORS, photometric="rgb", compression="png"))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "lzma", "zstd", "packbits"])
def test_tiff_codecs_of_libtiff_are_read(compression, read):
    marks = INDICES > 2
    assert np.array_equal(
        read(pillow(Image.fromarray(marks), "TIFF", compression=compression), read_mask).values, marks
    )


def test_many_channels_count_against_the_limit(read):
    data = tiff(np.zeros((5, 5, 40), np.uint8), photometric="minisblack", planarconfig="contig")
    assert read(data).shape == (5, 5, 40)
    with pytest.raises(ImageError, match="max_pixels=250"):
        read(data, max_pixels=249)
    assert read(data, max_pixels=250).shape == (5, 5, 40)


def test_what_is_no_image_is_named(tmp_path):
    for name, content, words in [
        ("empty.png", b"", "empty file"),
        ("text.png", b"hello, world, this is text", "no image"),
        ("magic.png", b"\x89PNG\r\n\x1a\n", "damaged or cut off"),
    ]:
        (tmp_path / name).write_bytes(content)
        for reader in (read_image, read_mask, probe):
            with pytest.raises(ImageError, match=f"{name}.*{words}"):
                reader(tmp_path / name)
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="not a file"):
        read_image(tmp_path)
    assert issubclass(ImageError, InputError)


def test_zero_pixels_are_refused(read):
    with pytest.raises(ImageError, match="0×3"):
        read(png(3, 0, 8, 0, []))


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_honoured_as_pillow_does(orientation, read):
    block = exif(orientation)
    picture = Image.fromarray(COLORS)
    little = b"Exif\0\0" + exif(orientation, "little")
    files = [
        pillow(picture, "JPEG", exif=b"Exif\0\0" + block),
        pillow(picture, "JPEG", exif=little),
        pillow(picture, "PNG", exif=block),
        pillow(picture, "WEBP", exif=block, lossless=True),
        pillow(picture, "TIFF", tiffinfo={274: orientation}),
    ]
    for data in files:
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        assert np.array_equal(read(data), expected)
        assert np.array_equal(read(data, read_mask).values, expected)
        assert read(data, probe).size == expected.shape[:2]
    masks = [pillow(indexed(), "PNG", exif=block), pillow(indexed(), "TIFF", tiffinfo={274: orientation})]
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(masks[0]))))
    for data in masks:
        assert np.array_equal(read(data, read_mask).values, expected)


@given(st.binary(max_size=60), st.sampled_from([b"", b"II*\0", b"MM\0*\0\0\0\x08\0\x01"]))
@settings(deadline=None, max_examples=60)
def test_damaged_exif_leaves_the_pixels_as_stored(tail, head):
    assert exif_orientation(b"Exif\0\0" + head + tail) in range(1, 9)
    assert exif_orientation(exif(9)) == exif_orientation(exif(0)) == exif_orientation(b"") == 1


def test_damaged_exif_warns_nobody(read):
    data = pillow(Image.fromarray(COLORS), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12")
    assert read(data).shape == (13, 17, 3)


# PNG


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_keeps_every_bit_of_every_channel(channels, dtype, read):
    values = RNG.integers(0, np.iinfo(dtype).max + 1, (5, 7, channels)).astype(dtype)
    width = 7 * channels * values.itemsize
    packed = values.astype(values.dtype.newbyteorder(">")).tobytes()
    data = png(
        7,
        5,
        values.itemsize * 8,
        {1: 0, 2: 4, 3: 2, 4: 6}[channels],
        [packed[k : k + width] for k in range(0, 5 * width, width)],
    )
    image = read(data)
    assert image.dtype == dtype
    assert np.array_equal(image, values)
    assert read(data, probe).dtype == np.dtype(dtype).name


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_of_few_bits_is_light_in_images_and_a_number_in_masks(bits, read):
    levels = RNG.integers(0, 2**bits, (6, 8)).astype(np.uint8)
    rows = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:].ravel()).tobytes() for row in levels]
    data = png(8, 6, bits, 0, rows)
    assert np.array_equal(read(data)[..., 0], levels * (255 // (2**bits - 1)))
    mask = read(data, read_mask)
    assert np.array_equal(mask.values, levels)
    assert mask.values.dtype == np.uint8
    keyed = png(8, 6, bits, 0, rows, chunk(b"tRNS", b"\0\1"))
    image = read(keyed)
    assert np.array_equal(image[..., 0], levels * (255 // (2**bits - 1)))
    assert np.array_equal(image[..., 1], np.where(levels == 1, 0, 255))
    assert read(keyed, probe).channels == 2


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_masks_give_indices_and_images_colours(bits, read):
    count = min(2**bits, 200)
    indices = RNG.integers(0, count, (9, 11)).astype(np.uint8)
    palette = RNG.integers(0, 256, (count, 3)).astype(np.uint8)
    data = pillow(indexed(indices, palette), "PNG", bits=bits)
    assert data[24] == bits
    mask = read(data, read_mask)
    assert np.array_equal(mask.values, indices)
    assert mask.palette is not None
    assert np.array_equal(mask.palette[:count], palette)
    assert not mask.lossy
    assert np.array_equal(read(data), palette[indices])


def test_palette_transparency_is_alpha_in_images_and_nothing_in_masks(read):
    data = pillow(indexed(), "PNG", transparency=bytes([0, 100]))
    image = read(data)
    assert np.array_equal(image[..., :3], PALETTE[INDICES])
    assert np.array_equal(image[..., 3], np.array([0, 100, 255, 255, 255])[INDICES])
    assert read(data, probe).channels == 4
    assert np.array_equal(read(data, read_mask).values, INDICES)
    opaque = pillow(indexed(), "PNG", transparency=bytes([255, 255]))
    assert read(opaque).shape == (13, 17, 3)


def test_a_transparent_colour_becomes_alpha(read):
    data = pillow(Image.fromarray(COLORS), "PNG", transparency=tuple(int(x) for x in COLORS[2, 3]))
    image = read(data)
    assert image.shape == (13, 17, 4)
    assert image[2, 3, 3] == 0
    assert np.array_equal(image[..., :3], COLORS)


def test_an_index_without_colour_is_refused_as_image_and_kept_as_mask(read):
    rows = [bytes([0, 1, 9])]
    data = png(3, 1, 8, 3, rows, chunk(b"PLTE", bytes(6)))
    with pytest.raises(ImageError, match="colour number 9 and a palette of 2"):
        read(data)
    assert read(data, read_mask).values.tolist() == [[0, 1, 9]]


def test_a_flipped_bit_among_indices_is_found_even_where_nothing_is_compressed(read):
    noise = RNG.integers(0, 5, (300, 300)).astype(np.uint8)
    data = bytearray(pillow(indexed(noise), "PNG", bits=8, compress_level=0))
    data[data.index(b"IDAT") + 5000] ^= 1
    with pytest.raises(ImageError, match="IDAT does not match its checksum"):
        read(bytes(data), read_mask)


@pytest.mark.parametrize("case", ["png", "png palette"])
def test_one_flipped_bit_among_the_pixels_is_found(case, read):
    data = bytearray(WHOLE[case][0])
    start = data.index(b"IDAT") + 4
    for place in range(start, len(data) - 16, 5):
        data[place] ^= 16
        with pytest.raises(ImageError):
            read(bytes(data))
        data[place] ^= 16


def test_animations_are_refused(read):
    frames = [Image.fromarray(COLORS), Image.fromarray(COLORS[::-1])]
    for kind in ("PNG", "WEBP", "GIF"):
        data = pillow(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError, match="animat"):
            read(data)


# JPEG


def test_cmyk_is_refused_with_the_reason(read):
    with pytest.raises(ImageError, match=r"CMYK.*profile.*PNG"):
        read(pillow(Image.new("CMYK", (4, 4)), "JPEG"))
    with pytest.raises(ImageError, match="SEPARATED"):
        read(pillow(Image.new("CMYK", (4, 4)), "TIFF"))


@pytest.mark.parametrize(
    ("case", "lossy"),
    [("jpeg", True), ("webp lossy", True), ("tiff jpeg", True), ("webp", False), ("png", False)],
)
def test_masks_say_whether_compression_lost_anything(case, lossy, read):
    assert read(WHOLE[case][0], read_mask).lossy is lossy


# TIFF


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_keeps_any_dtype_and_channels(dtype, channels, planar, read):
    values = (RNG.random((6, 9, channels)) * 100).astype(dtype)
    if channels == 1:
        data = tiff(values[..., 0])
    else:
        stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
        data = tiff(stored, photometric="minisblack", planarconfig=planar)
    image = read(data)
    assert image.dtype == np.dtype(dtype)
    assert np.array_equal(image, values)
    info = read(data, probe)
    assert (info.size, info.channels, info.dtype) == ((6, 9), channels, image.dtype.name)


def test_tiff_palette_of_eight_or_sixteen_bits(read):
    for factor, dtype in [(257, np.uint8), (256, np.uint8), (101, np.uint16)]:
        colormap = np.zeros((3, 256), np.uint16)
        colormap[:, :5] = PALETTE.T.astype(np.uint16) * factor
        data = tiff(INDICES, photometric="palette", colormap=colormap)
        image = read(data)
        assert image.dtype == dtype
        assert read(data, probe).dtype == image.dtype.name
        expected = PALETTE if dtype == np.uint8 else PALETTE.astype(np.uint16) * factor
        assert np.array_equal(image, expected[INDICES])
        mask = read(data, read_mask)
        assert np.array_equal(mask.values, INDICES)
        assert mask.palette[4] == tuple(int(c) * factor >> 8 for c in PALETTE[4])


def test_tiff_bits_and_white_for_zero(read):
    marks = INDICES > 2
    data = tiff(marks, photometric="minisblack")
    assert np.array_equal(read(data, read_mask).values, marks)
    assert np.array_equal(read(data)[..., 0], marks * 255)
    assert np.array_equal(read(tiff(marks, photometric="miniswhite"), read_mask).values, ~marks)
    gray = COLORS[..., 0]
    assert np.array_equal(read(tiff(gray, photometric="miniswhite"))[..., 0], 255 - gray)
    with pytest.raises(ImageError, match="zero means white"):
        read(tiff(gray.astype(np.float32), photometric="miniswhite"))


def test_tiff_stacks_volumes_and_complex_numbers_are_refused(read, tmp_path):
    stack = np.zeros((3, 8, 9), np.uint8)
    with pytest.raises(ImageError, match="stack of 3 pages"):
        read(tiff(stack, photometric="minisblack"))
    for axes, words in [("ZYX", "stack of 3 pages"), ("CYX", "1 page.* for axes {'C': 3")]:
        imagej = tiff(stack, imagej=True, metadata={"axes": axes})
        if axes == "ZYX":
            with pytest.raises(ImageError, match=words):
                read(imagej)
        with tifffile.TiffFile(io.BytesIO(imagej)) as file:
            first, second = (page.offset for page in file.pages[:2])
            order = file.byteorder
        one_page = bytearray(imagej)
        link = one_page.index(struct.pack(f"{order}I", second), first)
        one_page[link : link + 4] = bytes(4)
        with pytest.raises(ImageError, match=words):
            read(bytes(one_page))
    volume = np.zeros((16, 16, 16), np.uint8)
    with pytest.raises(ImageError, match="volume"):
        read(tiff(volume, photometric="minisblack", volumetric=True, tile=(16, 16, 16)))
    with pytest.raises(ImageError, match="complex64"):
        read(tiff(np.zeros((4, 4), np.complex64)))


def test_tiff_with_smaller_copies_is_read_at_full_size(read):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(COLORS, photometric="rgb")
        writer.write(COLORS[::2, ::2], photometric="rgb", subfiletype=1)
    assert np.array_equal(read(buffer.getvalue()), COLORS)


# Masks


def test_mask_alpha_must_be_opaque(read):
    opaque = np.dstack([COLORS, np.full(COLORS.shape[:2], 255, np.uint8)])
    assert np.array_equal(read(encoded(opaque), read_mask).values, COLORS)
    gray = opaque[..., [0, 3]]
    assert np.array_equal(read(encoded(gray), read_mask).values, COLORS[..., 0])
    opaque[3, 5, 3] = 254
    with pytest.raises(ImageError, match=r"1 transparent pixel\(s\), the first at row 3, column 5"):
        read(encoded(opaque), read_mask)


def test_masks_of_sixteen_bits_and_of_whole_floats_are_numbers(read):
    numbers = RNG.integers(0, 65536, (4, 6)).astype(np.uint16)
    assert np.array_equal(read(encoded(numbers), read_mask).values, numbers)
    floats = read(tiff(numbers.astype(np.float32)), read_mask).values
    assert floats.dtype.kind == "i"
    assert np.array_equal(floats, numbers)
    for wrong in (0.5, np.nan, np.inf):
        broken = numbers.astype(np.float32)
        broken[1, 2] = wrong
        with pytest.raises(ImageError, match=f"{wrong} at row 1, column 2"):
            read(tiff(broken), read_mask)


def test_masks_of_other_channels_are_refused(read):
    for values in (np.zeros((4, 5, 3), np.uint16), np.zeros((4, 5, 5), np.uint8)):
        with pytest.raises(ImageError, match="a mask of one channel"):
            read(tiff(values, photometric="minisblack", planarconfig="contig"), read_mask)


# Real files


def test_real_images_equal_pillow(shared_data):
    files = sorted((shared_data / "nuclei" / "images").glob("*.png"))[:40]
    files += sorted((shared_data / "photos").glob("*.jp*g"))[:5]
    files += sorted((shared_data / "nuclei" / "instances").glob("*.png"))[:5]
    for file in files:
        with Image.open(file) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        got = read_image(file)
        assert np.array_equal(got.squeeze(-1) if got.shape[2] == 1 else got, expected)
