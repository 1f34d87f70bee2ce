"""Outputs of any size, written from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fullyconv.errors import ImageError
from fullyconv.images._atomic import atomic_file, atomic_folder
from fullyconv.images._georeference import Georeference
from fullyconv.images._output_png import PngSink
from fullyconv.images._output_tiff import TiffSink
from fullyconv.images._output_zarr import ZarrSink
from fullyconv.images._planned import Content, Planned
from fullyconv.images._zarr import is_zarr
from fullyconv.labels import ClassTable


class Sink(Protocol):
    """A form of output: made with the path of an empty file or folder, and what is `Planned`."""

    def write(self, top: int, rows: NDArray[Any]) -> None:
        """Take one row of tiles, or what remains at the bottom: h×W×C."""

    def close(self) -> None:
        """Complete the file."""

    def discard(self) -> None:
        """Let go of the file, whatever state it is in."""


class OutputWriter:
    """An output under way; made by `open_output`.

    It appears under its name when `finish` returns. An exception in any method, or in a ``with`` block,
    removes what was written so far.
    """

    def __init__(self, path: Path, planned: Planned, *, overwrite: bool) -> None:
        self.path = path
        self._planned = planned
        self._next = 0
        with ExitStack() as stack:
            sink = SINKS[path.suffix.lower()]
            temporary = stack.enter_context(
                atomic_folder(path, replaceable=is_zarr, overwrite=overwrite)
                if sink is ZarrSink
                else atomic_file(path, overwrite=overwrite)
            )
            self._sink = sink(temporary, planned)
            self._stack = stack.pop_all()

    def write_rows(self, top: int, block: NDArray[Any]) -> None:
        """Write rows that follow those written last.

        Parameters
        ----------
        top
            Where they begin.
        block
            h×W, or h×W×C for probabilities, in the type of the output; h is a multiple of the chunk, or
            what remains to the bottom.

        Raises
        ------
        ImageError
            The block does not belong there.
        MachineError
            The disk is full; nothing is left behind.
        """
        with self._whole_or_nothing():
            self._refuse_misfit(top, block)
            chunk = self._planned.chunk
            rows = block.reshape(len(block), self._planned.size[1], -1)
            for start in range(0, len(rows), chunk):
                self._sink.write(top + start, rows[start : start + chunk])
            self._next = top + len(rows)

    def finish(self) -> None:
        """Complete the output, flush it to the disk, and give it its name.

        Raises
        ------
        ImageError
            Rows are missing.
        InputError
            Its name was taken meanwhile.
        MachineError
            The disk is full; nothing is left behind.
        """
        with self._whole_or_nothing():
            if self._next != self._planned.size[0]:
                raise ImageError(
                    f"{self.path}: {self._next} of {self._planned.size[0]} rows",
                    "all rows, once",
                    "write the others too",
                )
            self._sink.close()
            self._next = -1
        self._stack.close()

    def abort(self) -> None:
        """Remove what was written; do nothing after `finish` or an exception."""
        if self._next >= 0:
            with suppress(_AbandonedError), self._whole_or_nothing():
                raise _AbandonedError

    def __enter__(self) -> OutputWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    @contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._next = -1
            with self._stack:
                self._sink.discard()
                raise

    def _refuse_misfit(self, top: int, block: NDArray[Any]) -> None:
        planned = self._planned
        height, width = planned.size
        depth = () if planned.content == "labels" else (planned.depth,)
        expected = (len(block), width, *depth)
        bottom = top + len(block)
        is_whole = bottom == height or (bottom < height and len(block) % planned.chunk == 0)
        if top != self._next or block.shape != expected or not is_whole or block.dtype != planned.dtype:
            raise ImageError(
                f"{self.path}: rows from {top} of shape {block.shape} and type {block.dtype}",
                f"rows from {self._next} to {height} or a multiple of {planned.chunk}, {expected[1:]}, of "
                f"type {planned.dtype}",
                "write bands of whole tile rows in order, each once",
            )


class _AbandonedError(Exception):
    """What `OutputWriter.abort` raises to itself."""


def open_output(
    path: str | Path,
    *,
    size: tuple[int, int],
    classes: ClassTable,
    content: Content = "labels",
    dtype: DTypeLike | None = None,
    channels: Sequence[int] | None = None,
    chunk: int = 512,
    georeference: Georeference | None = None,
    overwrite: bool = False,
) -> OutputWriter:
    """Begin a file of labels or probabilities, to be written from top to bottom in bounded memory.

    Equal content gives equal bytes: no form holds a time or a random number.

    Parameters
    ----------
    path
        The suffix says the form. ``.png``: labels with the class colours as palette, up to 268 megapixels,
        kept in memory. ``.tif`` or ``.tiff``: a BigTIFF of deflated tiles, labels up to 255 with the colours
        as palette, names in its description; with ``georeference`` a GeoTIFF. ``.zarr``: an OME-Zarr image
        (NGFF 0.5) with a pyramid: each level half as large, labels by the majority of four pixels (of equals
        the first, row by row), probabilities by their mean.
    size
        (height, width).
    classes
        The class table.
    content
        ``"labels"``, H×W, or ``"probabilities"``, H×W×C.
    dtype
        Of the values; by default the class table's for labels and float16 for probabilities. As uint8,
        probabilities are counted in 255ths.
    channels
        The class of each channel of probabilities; None stands for all classes.
    chunk
        Side of the tiles in pixels, a multiple of 16.
    georeference
        Where the image lies on the ground (the extra ``geo``). Labels name the ignore index as "no data".
    overwrite
        Replace a file, or a Zarr folder, that is already there.

    Returns
    -------
    OutputWriter
        To be finished or given up; a ``with`` block gives it up unless it was finished.

    Raises
    ------
    InputError
        The path exists, or its folder does not.
    ImageError
        The suffix is unknown, or its form cannot hold this.
    MachineError
        The disk is full, or rasterio is missing.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.tif"
    >>> with open_output(path, size=(600, 40), classes=ClassTable(("sky", "sea"))) as output:
    ...     output.write_rows(0, np.zeros((512, 40), np.uint8))
    ...     output.write_rows(512, np.ones((88, 40), np.uint8))
    ...     output.finish()
    """
    path = Path(path)
    if path.suffix.lower() not in SINKS:
        raise ImageError(f"{path} to write", f"a name that ends in {', '.join(SINKS)}", "use .tif or .zarr")
    if min(size) < 1 or chunk < 16 or chunk % 16:
        raise ImageError(
            f"{path}: size {size} in tiles of {chunk}", "pixels, and tiles of a multiple of 16", "use 512"
        )
    if content == "labels":
        planned_dtype = np.dtype(classes.dtype if dtype is None else dtype)
        planned_channels: tuple[int, ...] = ()
    else:
        planned_dtype = np.dtype(np.float16 if dtype is None else dtype)
        planned_channels = tuple(range(len(classes)) if channels is None else channels)
    allowed = ("uint8", "uint16") if content == "labels" else ("uint8", "float16", "float32")
    is_wide_enough = content == "probabilities" or planned_dtype.itemsize >= classes.dtype.itemsize
    known = all(0 <= channel < len(classes) for channel in planned_channels)
    if (
        planned_dtype.name not in allowed
        or not is_wide_enough
        or not known
        or (content == "probabilities" and not planned_channels)
    ):
        raise ImageError(
            f"{path}: {content} of type {planned_dtype} for classes {planned_channels}",
            f"{' or '.join(allowed)}, and classes of 0 to {len(classes) - 1}",
            "use the default type, and name classes of the table",
        )
    planned = Planned(size, classes, content, planned_dtype, planned_channels, chunk, georeference)
    return OutputWriter(path, planned, overwrite=overwrite)


SINKS: dict[str, Callable[[Path, Planned], Sink]] = {
    ".png": PngSink,
    ".tif": TiffSink,
    ".tiff": TiffSink,
    ".zarr": ZarrSink,
}
