"""Writing: what is written comes back, whole files or none, and labels in their colours."""

import errno
import os
import resource
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fullyconv.errors import ImageError, InputError, MachineError
from fullyconv.images import (
    atomic_file,
    make_folder,
    probe,
    read_image,
    read_mask,
    write_image,
    write_labels,
)
from fullyconv.labels import ClassTable

TABLE = ClassTable(("background", "cell", "border"))


@st.composite
def tables(draw):
    count = draw(st.one_of(st.integers(2, 12), st.sampled_from([16, 17, 255, 256, 300])))
    ignore = draw(st.one_of(st.integers(count, max(count, 255)), st.sampled_from([1000, 65535])))
    return ClassTable(tuple(map(str, range(count))), ignore_index=ignore)


@settings(deadline=None, max_examples=80)
@given(st.data(), tables(), hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))
def test_labels_come_back(tmp_path_factory, data, table, shape):
    path = tmp_path_factory.mktemp("labels") / "labels.png"
    values = st.one_of(st.integers(0, len(table) - 1), st.just(table.ignore_index))
    labels = data.draw(hnp.arrays(np.int64, shape, elements=values))
    write_labels(path, labels, table)
    mask = read_mask(path)
    assert np.array_equal(mask.values, labels)
    assert mask.values.dtype == table.dtype
    assert not mask.lossy
    if table.ignore_index <= 255:
        assert mask.palette is not None
        assert mask.palette[: len(table)] == table.colors
        assert np.array_equal(read_image(path), table.to_colors(labels))
        assert np.array_equal(np.asarray(Image.open(path)), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, bool])
def test_any_whole_dtype_of_labels_is_written(tmp_path, dtype):
    labels = np.array([[0, 1], [1, 0]]).astype(dtype)
    write_labels(tmp_path / "a.png", labels.T, TABLE)
    assert np.array_equal(read_mask(tmp_path / "a.png").values, labels.T)


def test_labels_that_make_no_sense_are_refused(tmp_path):
    path = tmp_path / "a.png"
    for wrong, words in [
        (np.array([[0, 1], [3, 0]]), "label 3 at row 1, column 0"),
        (np.array([[0, -1]]), "label -1 at row 0, column 1"),
        (np.zeros((2, 2, 1), int), "shape"),
        (np.zeros((0, 4), int), "shape"),
        (np.zeros((2, 2)), "float64"),
    ]:
        with pytest.raises(ImageError, match=words):
            write_labels(path, wrong, TABLE)
    with pytest.raises(ImageError, match=r"a\.png"):
        write_labels(tmp_path / "a.jpg", np.zeros((2, 2), int), TABLE)
    assert list(tmp_path.iterdir()) == []


ANY_IMAGE = st.tuples(
    st.sampled_from([".png", ".tif", ".TIFF"]),
    st.sampled_from(["u1", "u2", "i2", "u4", "f4", "f8"]),
    st.integers(1, 6),
)


@settings(deadline=None, max_examples=80)
@given(st.data(), ANY_IMAGE, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
def test_images_come_back_or_are_refused(tmp_path_factory, data, kind, size):
    suffix, dtype, channels = kind
    path = tmp_path_factory.mktemp("images") / f"image{suffix}"
    array = data.draw(hnp.arrays(dtype, (*size, channels)))
    if suffix == ".png" and (dtype not in ("u1", "u2") or channels > 4):
        with pytest.raises(ImageError, match=r"image\.png.*channel.*\.tif"):
            write_image(path, array)
        assert not path.exists()
        return
    write_image(path, array)
    image = read_image(path)
    assert image.dtype == array.dtype
    assert np.array_equal(image, array, equal_nan=array.dtype.kind == "f")


def test_jpeg_and_wrong_requests(tmp_path):
    smooth = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8), (64, 64))
    for array in (smooth, np.dstack([smooth] * 3)):
        write_image(tmp_path / "a.jpg", array, overwrite=True)
        assert probe(tmp_path / "a.jpg").format == "JPEG"
        assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - array.reshape(64, 64, -1)).max() <= 6
    for name, array, words in [
        ("b.jpg", smooth.astype(np.uint16), "uint8 for JPEG"),
        ("b.xyz", smooth, r"\.png"),
        ("b.png", np.zeros((2, 2, 2, 2), np.uint8), "shape"),
        ("b.tif", np.zeros((2, 2), complex), "complex"),
    ]:
        with pytest.raises(ImageError, match=words):
            write_image(tmp_path / name, array)
    assert [each.name for each in tmp_path.iterdir()] == ["a.jpg"]


# Whole files or none


def test_an_existing_file_is_kept_unless_told(tmp_path):
    path = tmp_path / "a.png"
    first, second = np.zeros((3, 3), np.uint8), np.ones((4, 4), np.uint8)
    write_labels(path, first, TABLE)
    before = path.read_bytes()
    for write in (lambda: write_labels(path, second, TABLE), lambda: write_image(path, second)):
        with pytest.raises(InputError, match=r"already exists.*overwrite"):
            write()
    assert path.read_bytes() == before
    write_labels(path, second, TABLE, overwrite=True)
    assert np.array_equal(read_mask(path).values, second)
    assert list(tmp_path.iterdir()) == [path]


def test_a_dangling_link_counts_as_existing(tmp_path):
    path = tmp_path / "link"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="already exists"), atomic_file(path):
        pass


def test_the_name_appears_only_when_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
    assert path.read_text() == "half"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(failure), atomic_file(path, overwrite=True) as temporary:  # noqa: PT012 (what is left behind is what is tested)
        temporary.write_text("new")
        raise failure
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_who_takes_the_name_meanwhile_keeps_it(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no hard links here")

    for links in (os.link, no_links):
        monkeypatch.setattr(os, "link", links)
        path = tmp_path / links.__name__
        with pytest.raises(InputError, match="already exists"), atomic_file(path) as temporary:  # noqa: PT012 (what is left behind is what is tested)
            temporary.write_text("late")
            path.write_text("early")
        assert path.read_text() == "early"
        with atomic_file(tmp_path / f"{links.__name__} free") as temporary:
            temporary.write_text("mine")
        assert (tmp_path / f"{links.__name__} free").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_of_many_writers_exactly_one_wins(tmp_path):
    path, refused = tmp_path / "a", []

    def write(number):
        try:
            with atomic_file(path) as temporary:
                temporary.write_text(str(number) * 1000)
        except InputError:
            refused.append(number)

    writers = [threading.Thread(target=write, args=(k,)) for k in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(refused) == 7
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_labels(tmp_path / "a.png", np.zeros((2, 2), int), TABLE)
    finally:
        os.umask(old)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


def test_wrong_places_are_named(tmp_path):
    with pytest.raises(InputError, match="mkdir -p"), atomic_file(tmp_path / "no" / "a"):
        pass
    with pytest.raises(InputError, match="is a folder"), atomic_file(tmp_path, overwrite=True):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no folder"), atomic_file(tmp_path / "file" / "a"):
        pass


def test_folders_are_made_or_named(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "a" / "b" / "kept").write_text("kept")
    assert (make_folder(str(tmp_path / "a" / "b")) / "kept").read_text() == "kept"
    for wrong in ("a/b/kept", "a/b/kept/below"):
        with pytest.raises(InputError, match=f"{wrong}, which cannot be made: "):
            make_folder(tmp_path / wrong)


def test_a_file_too_large_for_the_disk_is_a_fault_of_the_machine(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(MachineError, match=r"a\.png.*too large"):
            write_image(tmp_path / "a.png", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_noticed_only_by_fsync_is_too(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.png").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match=r"No space left.*df -h"):
        write_labels(tmp_path / "a.png", np.zeros((2, 2), int), TABLE, overwrite=True)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


def test_other_faults_of_the_block_are_not_explained_away(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a"):
        (tmp_path / "missing").read_text()
