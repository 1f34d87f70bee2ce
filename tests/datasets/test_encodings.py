"""What masks mean, from the files alone or with a ``classes.toml``."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullyconv.datasets import class_counts, open_dataset
from fullyconv.datasets._encodings import Encoding, detect_encoding, take_census
from fullyconv.errors import DataError
from fullyconv.images import Mask
from fullyconv.labels import ClassTable

NAMES = '[[class]]\nname = "paper"\n[[class]]\nname = "ink"\n'


def grid(*values: int, dtype=np.uint8) -> np.ndarray:
    return np.resize(np.array(values, dtype), (4, 6))


def labels_of(folder):
    dataset = open_dataset(folder.root)
    return dataset, [dataset.load(sample)[1] for sample in dataset.samples]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_two_values_are_background_and_foreground(folder, dtype):
    high = np.iinfo(dtype).max
    folder.masks(grid(0, high, 0, dtype=dtype), grid(0, dtype=dtype), grid(high, dtype=dtype))
    dataset, (first, second, third) = labels_of(folder)
    assert dataset.classes.names == ("background", "foreground")
    assert first.dtype == np.uint8
    assert (first == grid(0, 1, 0)).all()
    assert (second == 0).all()
    assert (third == 1).all()
    assert class_counts(dataset, dataset.samples).tolist() == [16 + 24, 8 + 24]
    assert any(f"two values, 0 (background) and {high} (foreground)" in note for note in dataset.notes)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_index_masks_count_their_classes_and_ignore_255_or_65535(folder, dtype):
    high = np.iinfo(dtype).max
    folder.masks(grid(0, 1, 2, high, dtype=dtype), grid(0, 4, 1, dtype=dtype))
    dataset, (first, second) = labels_of(folder)
    assert dataset.classes.names == tuple(f"class {k}" for k in range(5))
    assert (first == grid(0, 1, 2, 255)).all()
    assert (second == grid(0, 4, 1)).all()
    assert f"masks: value {high} is ignored" in dataset.notes
    assert "masks: 12.5% of all pixels are ignored" in dataset.notes
    assert dataset.notes[-1].startswith(
        "absent and rare classes: no pixel of class 'class 3'; fix: add masks"
    )


def test_classes_counted_from_one_are_noted(folder):
    folder.masks(grid(1, 2, 3), grid(1, 3))
    notes = open_dataset(folder.root).notes
    said = (
        "what mask values mean: no pixel has the value 0, the classes seem to be counted from 1 to 3; fix: "
    )
    assert any(note.startswith(said) for note in notes)


def test_one_file_of_zero_and_ignore_does_not_make_index_masks_two_valued(folder):
    folder.masks(grid(0, 1), grid(0, 1, 2, 255), grid(0, 255))
    dataset, labels = labels_of(folder)
    assert len(dataset.classes) == 3
    assert (labels[2] == grid(0, 255)).all()


def test_a_palette_gives_its_colours_and_its_border_is_ignored(folder):
    palette = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * (252 * 3) + [224, 224, 192]
    folder.masks(grid(0, 1, 255), grid(0, 2), palette=palette)
    dataset, (first, _) = labels_of(folder)
    assert dataset.classes.names == ("class 0", "class 1", "class 2")
    assert dataset.classes.colors == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert (first == grid(0, 1, 255)).all()


def test_a_grey_palette_is_no_reason_for_grey_classes(folder):
    folder.masks(grid(0, 1), grid(0, 2), palette=[k for k in range(256) for _ in range(3)])
    assert open_dataset(folder.root).classes.colors == ClassTable.of(3).colors


def test_palettes_that_disagree_are_refused(folder):
    folder.masks(grid(0, 1), palette=[0, 0, 0, 9, 0, 0])
    folder.save("images/z.png", grid(1))
    folder.save("masks/z.png", grid(0, 1), [0, 0, 0, 0, 9, 0])
    with pytest.raises(DataError) as error:
        open_dataset(folder.root)
    assert error.value.problems == (
        "value 1 is (9, 0, 0) in the palette of masks/0.png but (0, 9, 0) in that of masks/z.png; "
        "fix: convert the masks to RGB and write a classes.toml with the colours",
    )


def test_grey_rgb_masks_are_read_as_values(folder):
    two = np.repeat(grid(0, 255, 255)[..., None], 3, 2)
    folder.masks(two, two)
    dataset, (first, _) = labels_of(folder)
    assert dataset.classes.names == ("background", "foreground")
    assert (first == grid(0, 1, 1)).all()


def test_rgb_masks_read_with_a_class_file_and_its_ignored_colour(folder):
    red, green, void = (200, 0, 0), (0, 200, 0), (1, 2, 3)
    mask = np.resize(np.array([red, green, void], np.uint8), (4, 6, 3))
    folder.masks(mask, mask)
    folder.text(
        "classes.toml",
        'ignore = [1, 2, 3]\n[[class]]\nname = "a"\ncolor = [200, 0, 0]\n'
        '[[class]]\nname = "b"\ncolor = [0, 200, 0]',
    )
    dataset, (first, _) = labels_of(folder)
    assert dataset.classes.names == ("a", "b")
    assert (first == grid(0, 1, 255)).all()
    assert class_counts(dataset, dataset.samples).tolist() == [16, 16]


def test_rgb_masks_without_a_class_file_propose_one_that_works(folder):
    mask = np.resize(np.array([(200, 0, 0), (0, 0, 0), (0, 0, 0)], np.uint8), (4, 6, 3))
    folder.masks(mask, mask)
    with pytest.raises(DataError) as error:
        open_dataset(folder.root)
    (problem,) = error.value.problems
    assert problem.startswith("the masks are RGB and there is no classes.toml; fix: write classes.toml")
    folder.text("classes.toml", problem.partition("names:\n")[2])
    dataset, (first, _) = labels_of(folder)
    assert dataset.classes.names == ("background", "class 1")
    assert dataset.classes.colors == ((0, 0, 0), (200, 0, 0))
    assert (first == grid(1, 0, 0)).all()


def test_rgb_masks_with_names_but_no_colours_propose_those_names(folder):
    mask = np.resize(np.array([(200, 0, 0), (0, 0, 0), (0, 0, 0)], np.uint8), (4, 6, 3))
    folder.masks(mask, mask).text("classes.toml", NAMES)
    with pytest.raises(DataError) as error:
        open_dataset(folder.root)
    assert '[[class]]\nname = "paper"\ncolor = [0, 0, 0]' in error.value.problems[0]


def test_smoothed_rgb_masks_are_called_so(folder):
    rng = np.random.default_rng(0)
    folder.masks(*rng.integers(0, 256, (2, 20, 20, 3), dtype=np.uint8))
    with pytest.raises(DataError) as error:
        open_dataset(folder.root)
    assert error.value.problems == (
        "the masks are RGB with 800 different colours; "
        "fix: save the masks without smoothing and without JPEG",
    )


def test_values_with_wide_gaps_propose_a_class_file_that_works(folder):
    folder.masks(grid(0, 128, 64), grid(0, 64, 255))
    with pytest.raises(DataError) as error:
        open_dataset(folder.root)
    (problem,) = error.value.problems
    assert problem.startswith(
        "the masks hold the values 0, 64, 128, with gaps "
        "(the rarest, 128, in 8 pixels of masks/0.png, first at row 0, column 1); "
        "fix: write classes.toml"
    )
    folder.text("classes.toml", problem.partition("names:\n")[2])
    dataset, (first, second) = labels_of(folder)
    assert dataset.classes.names == ("class 0", "class 64", "class 128")
    assert (first == grid(0, 2, 1)).all()
    assert (second == grid(0, 1, 255)).all()


def test_object_numbers_are_not_taken_for_classes(folder):
    folder.masks(*np.arange(800, dtype=np.uint16).reshape(2, 20, 20))
    with pytest.raises(DataError, match=r"800 different values .*object numbers, save masks of classes"):
        open_dataset(folder.root)


def test_masks_of_one_value_are_refused(folder):
    folder.masks(grid(0), grid(0))
    with pytest.raises(DataError, match="every mask holds only the value 0"):
        open_dataset(folder.root)


def test_a_class_file_names_two_valued_masks(folder):
    folder.masks(grid(0, 255), grid(0, 255)).text("classes.toml", NAMES)
    dataset, (first, _) = labels_of(folder)
    assert dataset.classes.names == ("paper", "ink")
    assert (first == grid(0, 1)).all()
    assert "masks: two values, 0 (paper) and 255 (ink)" in dataset.notes


def test_a_class_file_without_index_counts_from_zero_and_255_is_ignored(folder):
    folder.masks(grid(0, 1, 255), grid(0, 1)).text("classes.toml", NAMES)
    _, (first, _) = labels_of(folder)
    assert (first == grid(0, 1, 255)).all()


def test_a_class_file_gives_values_and_several_ignored_ones(folder):
    folder.masks(grid(7, 3, 11, 12), grid(3))
    folder.text(
        "classes.toml",
        'ignore = [11, 12]\n[[class]]\nname = "a"\nindex = 7\n[[class]]\nname = "b"\nindex = 3\n',
    )
    dataset, (first, _) = labels_of(folder)
    assert (first == grid(0, 1, 255, 255)).all()
    assert class_counts(dataset, dataset.samples).tolist() == [6, 6 + 24]


def test_another_class_file_may_be_named(folder):
    folder.masks(grid(0, 255), grid(0, 255))
    other = folder.text("other.toml", NAMES)
    assert open_dataset(folder.root, classes=other).classes.names == ("paper", "ink")


def test_one_coloured_mask_among_values_is_that_files_fault(folder):
    folder.masks(grid(0, 1), grid(0, 1), np.resize(np.array([0, 0, 7], np.uint8), (4, 6, 3)))
    with pytest.raises(DataError) as error:
        open_dataset(folder.root)
    assert error.value.problems == (
        "masks/2.png: 24 pixels of a colour, first at row 0, column 0, which is no class; "
        "fix: correct the mask, or name the classes in classes.toml",
    )


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 5)),
    st.sampled_from([np.uint8, np.uint16, np.int16, np.int64]),
)
def test_decoding_equals_a_dictionary_and_the_census_counts_it(values, dtype):
    values = values.astype(dtype)
    table = ClassTable(("a", "b", "c"))
    encoding = Encoding(table, {4: 0, 1: 1, 2: 2, 5: 255}, False, (), "")
    labels, known = encoding.decode(values)
    expected = [[encoding.labels.get(int(v), 255) for v in row] for row in values]
    assert labels.tolist() == expected
    assert known.tolist() == [[int(v) in encoding.labels for v in row] for row in values]
    census = take_census("x", Mask(values, None, False))
    assert encoding.pixels(census) == {int(v): int((values == v).sum()) for v in np.unique(values)}


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.booleans())
def test_complete_index_masks_decode_to_themselves(classes, wide):
    values = np.arange(classes * 3).reshape(3, classes) % classes
    mask = Mask(values.astype(np.uint16 if wide else np.int64), None, False)
    encoding = detect_encoding([take_census("x", mask)], None)
    labels, known = encoding.decode(mask.values)
    assert known.all()
    assert (labels == values).all()
