"""Decoded tiles, kept while there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock

from fullyconv.images._stored import Samples

Key = tuple[int, int]


class TileCache:
    """The tiles used last, up to a number of bytes; the very last one always.

    A tile that several threads ask for at once is decoded once. Tiles that a sparse file lacks are not kept:
    there is nothing to decode, and an image may have millions of them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._lock = Lock()
        self._held: OrderedDict[Key, Future[Samples | None]] = OrderedDict()

    def get(self, key: Key, decode: Callable[[int, int], Samples | None]) -> Samples | None:
        """Return the tile at ``key``, decoded now if it is not held."""
        with self._lock:
            known = self._held.get(key)
            tile: Future[Samples | None] = Future()
            if known is None:
                self._held[key] = tile
            else:
                self._held.move_to_end(key)
        if known is not None:
            return known.result()
        try:
            tile.set_result(decode(*key))
        except BaseException as error:
            with self._lock:
                del self._held[key]
            tile.set_exception(error)
            raise
        with self._lock:
            if tile.result() is None:
                self._held.pop(key, None)
            self._bytes += _bytes(tile)
            self._make_room()
        return tile.result()

    def clear(self) -> None:
        """Let go of all tiles."""
        with self._lock:
            self._held.clear()
            self._bytes = 0

    def _make_room(self) -> None:
        done = [key for key, tile in self._held.items() if tile.done()] if self._bytes > self._limit else []
        for key in done[:-1]:
            if self._bytes <= self._limit:
                break
            self._bytes -= _bytes(self._held.pop(key))


def _bytes(tile: Future[Samples | None]) -> int:
    samples = tile.result()
    return 0 if samples is None else int(samples.nbytes)
