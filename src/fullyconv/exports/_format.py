"""What every format of exported networks is to `export`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fullyconv.engines import DeployedGraph
from fullyconv.exports._batches import Batches
from fullyconv.exports._comparison import Run

KEY = "fullyconv"  # under which a file holds its metadata
Write = Callable[[Path, str], None]  # a file, its metadata as JSON


@dataclass(frozen=True)
class Format:
    """A format of exported networks.

    Parameters
    ----------
    suffix
        Of its files.
    packages
        The modules that it takes.
    install
        What brings them.
    convert
        Makes of a graph what writes it to a file, again with other metadata if need be.
    open
        Returns what runs a file, and the file's metadata.
    companions
        Suffixes of further files that belong to one.
    bounded
        Whether its programs plan all memory ahead; `Batches` says what they then take.
    dtypes
        The types of pixels that it knows, all if empty; images of others go in as float32.
    """

    suffix: str
    packages: tuple[str, ...]
    install: str
    convert: Callable[[DeployedGraph, Batches], Write]
    open: Callable[[Path], tuple[Run, str]]
    companions: tuple[str, ...] = ()
    bounded: bool = False
    dtypes: tuple[str, ...] = ()
