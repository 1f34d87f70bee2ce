"""Image files among files, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from fullyconv.errors import ImageError
from fullyconv.images._formats import IMAGE_SUFFIXES
from fullyconv.images._zarr import is_zarr


def find_images(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """List the image files that ``paths`` name, sorted, each once.

    Parameters
    ----------
    paths
        One or many of: a file (taken whatever its suffix, for its content decides), the folder of a Zarr
        image, a folder (its own images, not those of folders in it, hidden ones left out), or a pattern
        such as ``"scans/*.tif"`` or ``"scans/**/*.tif"``.

    Returns
    -------
    list of Path
        At least one.

    Raises
    ------
    ImageError
        A path names nothing, or no image is in it.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    found = {image for path in paths for image in _found_at(path)}
    if not found:
        raise ImageError("no paths", "image files, folders or patterns", "name at least one")
    return sorted(found)


def _found_at(path: str | Path) -> list[Path]:
    place = Path(path)
    if place.is_file() or is_zarr(place):
        return [place]
    if place.is_dir():
        found = list(place.iterdir())
    elif glob.has_magic(str(path)):
        found = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207 (a pattern may be absolute)
    else:
        raise ImageError(
            f"{path}: no such file or folder", "an image file or a folder of images", "check the name"
        )
    images = [each for each in found if _is_image(each)]
    if not images:
        raise ImageError(
            f"{path}: no image files",
            f"files that end in {', '.join(sorted(IMAGE_SUFFIXES))}, or folders of Zarr",
            "check the place",
        )
    return images


def _is_image(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return (path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()) or is_zarr(path)
