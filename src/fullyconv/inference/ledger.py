"""What an unfinished command had done, so that the same command goes on where it was stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from hashlib import file_digest
from pathlib import Path
from typing import IO, Any

from fullyconv.errors import ConfigError
from fullyconv.images import atomic_file, make_folder
from fullyconv.models import model_files

FOLDER = ".unfinished"


def model_hash(path: Path) -> str:
    """Return what changes with any byte of a model file, or of the files of the folds in a folder."""
    digests = []
    for each in model_files(path):
        with each.open("rb") as file:
            digests.append(file_digest(file, "sha256").hexdigest())
    return "+".join(digests)


class Ledger:
    """The hidden folder in which a command keeps what it has done; one process at a time may hold it.

    Parameters
    ----------
    out
        The command's folder; the ledger lies in it.
    facts
        What makes the command the same: JSON-ready values by name, such as the model's hash.
    names
        Of the images, each once.
    restart
        Forget what another command, or an earlier one, has left unfinished.

    Attributes
    ----------
    folder : Path
        For whatever else is unfinished; goes away when all is done.
    began : frozenset of str
        The images whose results the unfinished command may have written, so that they are ours to replace.
    resumed : bool
        Whether there was something to go on with.

    Raises
    ------
    ConfigError
        Another process holds the folder, or what is unfinished there is of another command.
    """

    def __init__(
        self, out: Path, facts: dict[str, Any], names: Iterable[str], *, restart: bool = False
    ) -> None:
        self.folder = make_folder(out / FOLDER)
        self._lock = _lock(self.folder)
        try:
            self._begin(out, json.loads(json.dumps(facts)), names, restart)
        except BaseException:
            self._lock.close()
            raise

    def _begin(self, out: Path, facts: dict[str, Any], names: Iterable[str], restart: bool) -> None:
        record = self._record()
        self.began = frozenset(record["names"]) if record else frozenset()
        if record and not restart:
            _require_same(out, record["facts"], facts)
        self.resumed = record is not None and not restart
        if record and restart:
            self._clear()
        with atomic_file(self.folder / "command.json", overwrite=True) as temporary:
            names = sorted({*names, *self.began})
            temporary.write_text(json.dumps({"facts": facts, "names": names}), "utf-8")
        lines = self._lines()
        self._done: dict[str, str] = dict(json.loads(line) for line in lines)
        with atomic_file(self.folder / "done.jsonl", overwrite=True) as temporary:
            temporary.write_text("".join(line + "\n" for line in lines), "utf-8")
        self._file = (self.folder / "done.jsonl").open("a", encoding="utf-8")

    def is_done(self, name: str, fingerprint: str) -> bool:
        """Say whether an image's results are complete.

        Raises
        ------
        ConfigError
            They are those of another file of that name.
        """
        known = self._done.get(name)
        if known is not None and known != fingerprint:
            raise changed(name, "it was predicted, and has changed since")
        return known is not None

    def finish(self, name: str, fingerprint: str) -> None:
        """Note that an image's results are complete."""
        self._done[name] = fingerprint
        self._file.write(json.dumps([name, fingerprint]) + "\n")
        self._file.flush()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was done yet that is worth keeping."""
        return not self._done and not any(path.is_dir() for path in self.folder.iterdir())

    def agree(self, **choices: str) -> dict[str, str]:
        """Keep what was chosen by measuring; return what was kept first, so that going on is the same."""
        path = self.folder / "choices.json"
        with suppress(FileNotFoundError):
            kept: dict[str, str] = json.loads(path.read_text("utf-8"))
            return kept
        if choices:
            with atomic_file(path) as temporary:
                temporary.write_text(json.dumps(choices), "utf-8")
        return choices

    def close(self, *, finished: bool) -> None:
        """Let go of the folder; remove it where the command has nothing left to do."""
        self._file.close()
        if finished:
            shutil.rmtree(self.folder)
        self._lock.close()

    def _record(self) -> dict[str, Any] | None:
        with suppress(FileNotFoundError):
            record: dict[str, Any] = json.loads((self.folder / "command.json").read_text("utf-8"))
            return record
        return None

    def _lines(self) -> list[str]:
        """Return the whole lines of what is done: the last may have been cut off."""
        with suppress(FileNotFoundError):
            return (self.folder / "done.jsonl").read_text("utf-8").split("\n")[:-1]
        return []

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()


def changed(name: str, how: str) -> ConfigError:
    """Return the error about an image that is not what it was when its prediction began."""
    return ConfigError(
        f"image {name}: {how}",
        "the same images until the command is finished",
        "bring the file back, or pass --restart to begin anew",
    )


def _require_same(out: Path, known: dict[str, Any], now: dict[str, Any]) -> None:
    different = [name for name in {**known, **now} if known.get(name) != now.get(name)]
    if different:
        raise ConfigError(
            f"an unfinished prediction in {out} with another {', '.join(different)}",
            "the same model and options, to go on with it",
            "repeat that command, choose another --out, or pass --restart to forget what it did",
        )


def _lock(folder: Path) -> IO[bytes]:
    """Hold the folder until the file is closed or the process ends, however it ends."""
    file = (folder / "lock").open("ab")
    if os.name == "posix":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ConfigError(
                f"{folder.parent}, where another process is predicting",
                "one process for each --out",
                "wait for it, or choose another --out",
            ) from None
    return file
