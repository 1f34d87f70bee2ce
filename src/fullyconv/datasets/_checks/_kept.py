"""Facts kept between runs, so that a dataset that was checked is not decoded again.

They are found by the content of the image and the mask, wherever these lie and whatever they are called:
what is kept can be old but never wrong. Only the user's cache folder is written to.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fullyconv import __version__
from fullyconv.datasets._checks._facts import Facts, in_threads, take_facts
from fullyconv.datasets._samples import Sample
from fullyconv.datasets._sources import digest_of
from fullyconv.errors import FullyconvError
from fullyconv.progress import Progress

VARIABLE = "FULLYCONV_CACHE"

_FORMAT = f"1 {__version__}"  # another version may measure otherwise
_KEPT_SECONDS = 90 * 24 * 3600
_MOST_AT_ONCE = 500  # places in one SQL statement
_FACTS: TypeAdapter[Facts] = TypeAdapter(Facts)


def facts_of(samples: Sequence[Sample], progress: Progress) -> list[Facts]:
    """Return the facts of each sample: those kept from earlier, else by decoding its files.

    A file that cannot even be hashed is examined, so that the reason is told.
    """
    keys = list(in_threads(_key, samples))
    kept = _read([key for key in keys if key])
    facts = []
    fresh: dict[str, Facts] = {}
    waiting = [(sample, key) for sample, key in zip(samples, keys, strict=True) if key not in kept]
    found = iter(in_threads(lambda pair: take_facts(pair[0]), waiting))
    for done, key in enumerate(keys, 1):
        if key in kept:
            facts.append(kept[key])
        else:
            facts.append(next(found))
            if key:
                fresh[key] = facts[-1]
        progress.advance("reading images and masks", done, len(samples))
    _write(fresh)
    return facts


def cache_file() -> Path | None:
    """Return where facts are kept; None, and nothing is kept, where FULLYCONV_CACHE is empty."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) / "facts.sqlite" if named else None
    home = Path.home()
    places = {"darwin": home / "Library/Caches", "win32": Path(os.environ.get("LOCALAPPDATA", home))}
    folder = os.environ.get("XDG_CACHE_HOME") or places.get(sys.platform) or home / ".cache"
    return Path(folder) / "fullyconv" / "facts.sqlite"


def _key(sample: Sample) -> str:
    try:
        parts = [digest_of(source) if source else "" for source in (sample.image, sample.mask)]
    except (OSError, FullyconvError):
        return ""
    return hashlib.sha256(json.dumps([_FORMAT, *parts]).encode()).hexdigest()


def _read(keys: Sequence[str]) -> Mapping[str, Facts]:
    kept: dict[str, Facts] = {}
    # A cache that is damaged, locked or not to be written to is no cache; the files are decoded instead.
    with suppress(sqlite3.Error, OSError, ValidationError), closing(_open()) as store, store:
        for part in _slices(keys):
            marks = ",".join("?" * len(part))
            rows = store.execute(f"SELECT key, facts FROM kept WHERE key IN ({marks})", part).fetchall()
            kept |= {key: _FACTS.validate_json(text) for key, text in rows}
            store.execute(f"UPDATE kept SET used = ? WHERE key IN ({marks})", [time.time(), *part])
    return kept


def _write(fresh: Mapping[str, Facts]) -> None:
    if not fresh:
        return
    with suppress(sqlite3.Error, OSError), closing(_open()) as store, store:
        rows = [(key, _FACTS.dump_json(facts), time.time()) for key, facts in fresh.items()]
        store.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", rows)
        store.execute("DELETE FROM kept WHERE used < ?", [time.time() - _KEPT_SECONDS])


def _open() -> sqlite3.Connection:
    file = cache_file()
    if file is None:
        return _with_table(sqlite3.connect(":memory:"))
    file.parent.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(file, timeout=5)
    try:
        return _with_table(store)
    except sqlite3.DatabaseError as error:
        store.close()
        if "not a database" in str(error) or "malformed" in str(error):
            file.unlink()
            return _with_table(sqlite3.connect(file, timeout=5))
        raise


def _with_table(store: sqlite3.Connection) -> sqlite3.Connection:
    store.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, facts BLOB, used REAL)")
    return store


def _slices(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + _MOST_AT_ONCE] for start in range(0, len(keys), _MOST_AT_ONCE))
