"""TIFF files of many pages: each page is an image, and the same page of the other file its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.datasets._layouts._layout import Layout
from fullyconv.datasets._samples import Sample, counted, problem
from fullyconv.datasets._sources import digest_of_values
from fullyconv.errors import ImageError
from fullyconv.images import Mask

_SUFFIXES = {".tif", ".tiff"}
# The axis of pages comes first: depth, time, sequence, or unknown. Channels are of one image.
_PAGE_AXES = set("ZTIQ")


@dataclass(frozen=True)
class Page:
    """A page of a TIFF stack, counted from 0."""

    path: Path
    number: int

    @property
    def place(self) -> str:
        """The page, counted from 1 as viewers do."""
        return f"page {self.number + 1}"

    def read_image(self) -> NDArray[Any]:
        """Return H×W×C.

        Raises
        ------
        ImageError
            The file cannot be read, or the page is no gray or RGB image.
        """
        page = self._read()
        return page if page.ndim == 3 else page[..., None]

    def read_mask(self) -> Mask:
        """Return the numbers of the page.

        Raises
        ------
        ImageError
            As `read_image`, or they are not whole.
        """
        page = self._read()
        if page.dtype.kind not in "iub" or (page.ndim == 3 and page.shape[2] != 3):
            raise ImageError(
                f"{self.path}, {self.place}: a mask of {page.dtype} and shape {page.shape}",
                "whole numbers, one a pixel",
                "save class numbers as 8 or 16 bits",
            )
        return Mask(page.astype(np.uint8) if page.dtype.kind == "b" else page, None, False)

    def digest(self) -> str:
        """Return digits of the pixels."""
        page = self._read()
        return digest_of_values(page.shape, page.dtype.str, page.tobytes())

    def _read(self) -> NDArray[Any]:
        import tifffile

        try:
            with tifffile.TiffFile(self.path) as tiff:
                series = tiff.series[0]
                paged = len(series.pages) == series.shape[0] and series.keyframe.shape == series.shape[1:]
                page = series.pages[self.number].asarray() if paged else series.asarray()[self.number]
        except (
            Exception
        ) as error:  # a decoder may raise anything on bytes that are not what it takes them for
            raise ImageError(
                f"{self.path}, {self.place}: damaged or cut off ({type(error).__name__}: {error})",
                "a whole TIFF file",
                "copy or export the file again",
            ) from error
        return np.ascontiguousarray(page)


def expand_stacks(layout: Layout, root: Path) -> Layout:
    """Replace each pair of TIFF stacks by the pairs of their pages."""
    if not any(is_stack(sample.image) for sample in layout.samples):
        return layout
    samples: list[Sample] = []
    problems: list[str] = []
    stacks = 0
    for sample in layout.samples:
        pages = _pages(sample.image)
        others = [_pages(source) for source in (sample.mask, sample.instances) if source is not None]
        if pages == 1 or not isinstance(sample.image, Path):
            samples.append(sample)
        elif any(other != pages for other in others):
            name = sample.image.relative_to(root)
            what = f"it has {counted(pages, 'page')}, its mask {others[0]}"
            problems.append(problem(name, what, "save a stack of masks with a page for each image"))
        else:
            stacks += 1
            samples += _page_samples(sample, pages)
    return replace(
        layout,
        description=f"{layout.description}; pages of {counted(stacks, 'stack')}",
        samples=tuple(samples),
        problems=(*layout.problems, *problems),
    )


def is_stack(source: object) -> bool:
    """Whether a file is a TIFF of several pages."""
    return _pages(source) > 1


def _page_samples(sample: Sample, pages: int) -> Sequence[Sample]:
    width = len(str(pages))
    image, mask, instances = sample.image, sample.mask, sample.instances
    assert isinstance(image, Path)
    return [
        replace(
            sample,
            name=f"{sample.name}:{number + 1:0{width}}",
            image=Page(image, number),
            mask=Page(mask, number) if isinstance(mask, Path) else None,
            instances=Page(instances, number) if isinstance(instances, Path) else None,
        )
        for number in range(pages)
    ]


def _pages(source: object) -> int:
    """Return the number of pages of a TIFF file; 1 for all else, and for what cannot be read."""
    if not isinstance(source, Path) or source.suffix.lower() not in _SUFFIXES:
        return 1
    import tifffile

    try:
        with tifffile.TiffFile(source) as tiff:
            series = tiff.series[0]
            is_paged = series.axes[0] in _PAGE_AXES and series.axes[1:] in ("YX", "YXS")
            return int(series.shape[0]) if is_paged else 1
    except Exception:  # said when it is read
        return 1
