"""Folders of images and masks in the namings people use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fullyconv.datasets._layouts._layout import (
    SPLIT_NAMES,
    Layout,
    images_by_stem,
    is_image,
    visible_files,
)
from fullyconv.datasets._samples import Sample, counted, problem

# The first that is there is taken.
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "inputs", "input")
MASK_FOLDERS = (
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "annot",
    "gt",
    "groundtruth",
    "ground_truth",
    "ground-truth",
    "targets",
    "target",
)  # fmt: skip

# What a mask's name has more than its image's; "-volume" and "-labels" as in the challenge ISBI 2012.
_MASK_ENDING = re.compile(
    r"[_\-. ](masks?|labels?|labelids|gt|seg|segmentation|annotations?|annot)$", re.IGNORECASE
)
_IMAGE_ENDING = re.compile(r"[_\-. ](images?|img|volume)$", re.IGNORECASE)


@dataclass(frozen=True)
class _Place:
    """Where images and their masks are: two folders, or the same where masks lie beside images."""

    images: Path
    masks: Path | None
    split: str | None = None
    prefix: str = ""

    @property
    def needs_masks(self) -> bool:
        return self.split != "test"


def find_folders(root: Path) -> Layout | None:
    """Images and masks in two folders, for each split or for all, or side by side."""
    for arrangement in ARRANGEMENTS:
        places = list(arrangement(root))
        if places:
            return _join(root, places)
    return None


def _split_folders(root: Path) -> Iterator[_Place]:
    """``train/images`` and ``train/masks``."""
    for folder in _folders(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        images = _folder_named(folder, IMAGE_FOLDERS)
        if split and images:
            masks = _mask_folder(folder)
            if masks is None and split != "test":
                masks = folder / MASK_FOLDERS[0]
            yield _Place(images, masks, split, f"{folder.name}/")


def _folder_splits(root: Path) -> Iterator[_Place]:
    """``images/train`` and ``masks/train``."""
    images, masks = _folder_named(root, IMAGE_FOLDERS), _mask_folder(root)
    if images is None or masks is None or any(is_image(path) for path in images.iterdir()):
        return
    for folder in _folders(images):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split:
            own = masks / folder.name
            yield _Place(folder, own if own.is_dir() or split != "test" else None, split, f"{folder.name}/")


def _annot_folders(root: Path) -> Iterator[_Place]:
    """``train`` and ``trainannot`` as in SegNet, or ``train`` and ``train_masks``."""
    names = {folder.name.lower(): folder for folder in _folders(root)}
    found = []
    for name, folder in names.items():
        split = SPLIT_NAMES.get(name)
        if split and any(is_image(path) for path in folder.iterdir()):
            masks = next(
                (names[name + joint + end] for joint in ("", "_", "-") for end in MASK_FOLDERS
                 if name + joint + end in names),
                None,
            )  # fmt: skip
            found.append(_Place(folder, masks, split, f"{folder.name}/"))
    if any(place.masks for place in found):
        yield from found


def _two_folders(root: Path) -> Iterator[_Place]:
    """``images`` and ``masks``."""
    images = _folder_named(root, IMAGE_FOLDERS)
    if images:
        yield _Place(images, _mask_folder(root) or root / MASK_FOLDERS[0])


def _split_side_by_side(root: Path) -> Iterator[_Place]:
    """``train/a.jpg`` beside ``train/a_mask.png``."""
    for folder in _folders(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split and _has_pairs(folder):
            yield _Place(folder, folder, split, f"{folder.name}/")


def _side_by_side(root: Path) -> Iterator[_Place]:
    """``a.jpg`` beside ``a_mask.png``."""
    if _has_pairs(root):
        yield _Place(root, root)


def _join(root: Path, places: list[_Place]) -> Layout:
    parts = [_pairs(root, place) for place in places]
    first = places[0]
    if first.split is None:
        description = parts[0].description
    else:
        folders = _shown(root, first)
        counts = ", ".join(
            f"{place.prefix} {len(part.samples)}" for place, part in zip(places, parts, strict=True)
        )
        description = f"{counts}, each with {folders}"
    return Layout(
        description,
        tuple(sample for part in parts for sample in part.samples),
        tuple(line for part in parts for line in part.problems),
        tuple(line for part in parts for line in part.notes),
    )


def _shown(root: Path, place: _Place) -> str:
    if place.masks == place.images:
        return "masks beside images"
    masks = place.masks.name if place.masks else MASK_FOLDERS[0]
    if SPLIT_NAMES.get(place.images.name.lower()):
        masks = place.masks.relative_to(root).as_posix() if place.masks else masks
        return f"masks as in {masks}/"
    return f"{place.images.name}/ and {masks}/"


def _pairs(root: Path, place: _Place) -> Layout:
    """Pair the files of a place by name; messages name files below ``root``."""
    where = place.prefix.rstrip("/") or root.name
    if place.masks == place.images:
        images, masks, others = _divided(place.images)
    else:
        images, others = images_by_stem(place.images)
        masks = {} if place.masks is None else _by_image(images_by_stem(place.masks)[0], images)
    folder = place.images if place.images.name == where else f"{where}/{place.images.name}"
    shown = folder.name if isinstance(folder, Path) else folder
    notes = [f"{counted(len(others), 'file')} of {shown} no image, left out"] if others else []
    problems: list[str] = []
    if not place.needs_masks and not masks:
        notes.append(f"{where}/ has no masks: its images are read without truth")
        samples = [Sample(place.prefix + stem, files[0], None, place.split) for stem, files in images.items()]
        return Layout("images/ without masks/", tuple(samples), (), tuple(notes))
    for files in (*images.values(), *masks.values()):
        if len(files) > 1:
            names = " and ".join(file.name for file in files)
            inside = files[0].parent.relative_to(root)
            problems.append(problem(inside, f"{names} have the same stem", "keep one of them"))
    for stem in images.keys() - masks.keys():
        expected = ((place.masks or place.images) / f"{stem}.png").relative_to(root)
        path = images[stem][0].relative_to(root)
        problems.append(problem(path, "it has no mask", f"add {expected} or remove the image"))
    for stem in masks.keys() - images.keys():
        path = masks[stem][0].relative_to(root)
        inside = place.images.relative_to(root)
        problems.append(problem(path, "it has no image", f"add the image to {inside}/ or remove the mask"))
    both = sorted(images.keys() & masks.keys())
    numbered = _instances(place, both)
    if 0 < len(numbered) < len(both):
        notes.append(f"{where}/instances has {len(numbered)} of {counted(len(both), 'pair')}")
    samples = [
        Sample(place.prefix + stem, images[stem][0], masks[stem][0], place.split, numbered.get(stem))
        for stem in both
    ]
    equal = all(Path(s.name).name == s.mask.stem for s in samples if isinstance(s.mask, Path))
    manner = "of equal stems" if equal else f"such as {samples[0].image.name} and {samples[0].mask.name}"  # type: ignore[union-attr]  # pairs all have masks
    return Layout(
        f"{_shown(root, place)} with {counted(len(samples), 'pair')} {manner}",
        tuple(samples),
        tuple(sorted(problems)),
        tuple(notes),
    )


def _instances(place: _Place, stems: list[str]) -> dict[str, Path]:
    """Find the files of object numbers: in ``instances/`` beside the folder of masks."""
    folder = place.images.parent / "instances"
    if place.masks == place.images or not folder.is_dir():
        return {}
    found, _ = images_by_stem(folder)
    return {stem: found[stem][0] for stem in stems if stem in found}


def _by_image(masks: Mapping[str, list[Path]], images: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    """Key masks by their image's stem: the same, or with an ending such as ``_mask``."""
    bare = {_IMAGE_ENDING.sub("", stem): stem for stem in images}
    found: dict[str, list[Path]] = {}
    for stem, files in masks.items():
        short = _MASK_ENDING.sub("", stem)
        key = next((k for k in (stem, short, bare.get(short, "")) if k in images), stem)
        found.setdefault(key, []).extend(files)
    return found


def _divided(folder: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]], list[Path]]:
    """Tell the images of one folder from the masks beside them."""
    files, others = images_by_stem(folder)
    masks = {stem: paths for stem, paths in files.items() if _MASK_ENDING.search(stem)}
    images = {stem: paths for stem, paths in files.items() if stem not in masks}
    return images, _by_image(masks, images), others


def _has_pairs(folder: Path) -> bool:
    if not any(is_image(path) and _MASK_ENDING.search(path.stem) for path in folder.iterdir()):
        return False
    images, masks, _ = _divided(folder)
    return bool(images.keys() & masks.keys())


def _folders(root: Path) -> list[Path]:
    return [
        child for child in sorted(root.iterdir()) if child.is_dir() and not child.name.startswith((".", "__"))
    ]


def _folder_named(root: Path, names: tuple[str, ...]) -> Path | None:
    found = {folder.name.lower(): folder for folder in _folders(root)}
    return next((found[name] for name in names if name in found), None)


def _mask_folder(root: Path) -> Path | None:
    """Return the first folder named for masks; one of another name than ``masks`` must hold images."""
    found = {folder.name.lower(): folder for folder in _folders(root)}
    for name in MASK_FOLDERS:
        if name in found and (name == MASK_FOLDERS[0] or any(map(is_image, visible_files(found[name])))):
            return found[name]
    return None


# The first that finds a place answers.
ARRANGEMENTS = (
    _split_folders,
    _folder_splits,
    _annot_folders,
    _two_folders,
    _split_side_by_side,
    _side_by_side,
)
