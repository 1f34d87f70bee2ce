"""The container of a model file: safetensors, read strictly, and before anything is allocated.

A header length (8 bytes, little-endian), a JSON header, then the tensors' bytes. What `docs/format.md`
says about the container is checked here; what it says about the model, in `fullyconv.models.file`.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from torch import Tensor

from fullyconv.errors import FullyconvError, ModelFileError

MAX_HEADER = 1 << 20
MAX_OBJECTS = 8192  # each tensor is one; also the most members of one
DTYPES: dict[str, tuple[torch.dtype, np.dtype[Any]]] = {
    "F32": (torch.float32, np.dtype("<f4")),
    "I64": (torch.int64, np.dtype("<i8")),
}

_EXPECTED = "a model file as docs/format.md specifies"
SAVE_ANEW = "copy it again if it was damaged on the way, or save it anew with fullyconv.save"

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Model = TypeVar("_Model", bound=BaseModel)


class Entry(BaseModel):
    """Where one tensor lies: ``data_offsets`` are its first and past its last byte, from the header's end."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    dtype: Literal["F32", "I64"]
    shape: Annotated[tuple[_Count, ...], Field(max_length=8)]
    data_offsets: tuple[_Count, _Count]

    @property
    def size(self) -> int:
        """Bytes that dtype and shape ask for."""
        return math.prod(self.shape) * DTYPES[self.dtype][1].itemsize


class Metadata(BaseModel):
    """The one text a model file carries."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    fullyconv: str


class Directory(BaseModel):
    """The container's header: every tensor's entry by name, and the metadata."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    metadata: Metadata = Field(alias="__metadata__")
    __pydantic_extra__: dict[str, Entry]

    @property
    def entries(self) -> dict[str, Entry]:
        """The tensors by name."""
        return self.__pydantic_extra__


class Malformed(Exception):  # noqa: N818 (it names a finding; `opened` makes an error of it)
    """What is wrong with a file's content, and what to do about it."""

    def __init__(self, finding: str, fix: str = SAVE_ANEW) -> None:
        super().__init__(finding)
        self.fix = fix


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """Open a model file for reading, and turn what is found wrong meanwhile into `ModelFileError`.

    Only a plain file is opened, since a pipe could make us wait for ever.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise Malformed("no bytes of its own: it is a folder, a device or a pipe")
        with Path(path).open("rb") as file:
            yield file
    except Malformed as error:
        raise ModelFileError(f"{str(path)!r} holds {error}", _EXPECTED, error.fix) from error
    except FullyconvError as error:  # what the header asks for contradicts itself
        raise ModelFileError(f"{str(path)!r} holds {error.given}", _EXPECTED, SAVE_ANEW) from error
    except OSError as error:
        raise ModelFileError(
            f"{str(path)!r} cannot be read ({error.strerror})",
            "a model file",
            "check the name and the permissions",
        ) from error


def read_directory(file: BinaryIO) -> tuple[Directory, int]:
    """Read and check the container's header.

    Returns
    -------
    directory
        Its entries cover the rest of the file, without overlap or hole.
    start
        Where the tensors' bytes begin.

    Raises
    ------
    Malformed
        The container is not as specified.
    """
    size = file.seek(0, 2)
    file.seek(0)
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(size - 8, MAX_HEADER):
        if prefix.startswith((b"PK\x03\x04", b"\x80")):
            raise Malformed(
                "a zip archive or a pickle, which could run code when it is read",
                "read it with the program that wrote it, then write the network with fullyconv.save",
            )
        raise Malformed(f"a header of {length} bytes in a file of {size}, where {MAX_HEADER} are the limit")
    text = file.read(length)
    directory = parse(Directory, text)
    _check_layout(directory.entries, size - 8 - length)
    return directory, 8 + length


def read_tensor(file: BinaryIO, start: int, entry: Entry) -> Tensor:
    """Read one tensor of a container whose directory was checked."""
    file.seek(start + entry.data_offsets[0])
    data = file.read(entry.size)
    if len(data) != entry.size:
        raise Malformed("fewer bytes than when it was opened")
    stored = DTYPES[entry.dtype][1]
    native = np.frombuffer(data, stored).astype(stored.newbyteorder("="))
    return torch.from_numpy(native).reshape(entry.shape)


def parse(model: type[_Model], text: bytes | str) -> _Model:
    """Read JSON into ``model``; no doubled keys, no NaN, nothing deep, nothing the model does not name."""
    parse_plain(text)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Malformed(f"a header whose {place[:100]!r} is wrong ({first['msg'][:200]})") from None


def parse_plain(text: bytes | str) -> Any:
    """Read JSON as dictionaries and lists, with all checks that need no model."""
    try:
        # This parser bounds the depth, whatever Python's recursion limit; the next one sees doubled keys.
        from_json(text, allow_inf_nan=False)
        return json.loads(text, object_pairs_hook=_Objects().take)
    except ValueError as error:
        raise Malformed(f"a header that is no strict JSON ({str(error)[:200]})") from None


class _Objects:
    """Makes dictionaries of a JSON text's objects: so many at most, of so many members, each named once."""

    def __init__(self) -> None:
        self._left = MAX_OBJECTS

    def take(self, members: list[tuple[str, Any]]) -> dict[str, Any]:
        self._left -= 1
        if self._left < 0 or len(members) > MAX_OBJECTS:
            raise ValueError(f"more than {MAX_OBJECTS} objects, or members of one")
        result = dict(members)
        if len(result) < len(members):
            raise ValueError("a name occurs twice in one object")
        return result


def _check_layout(entries: dict[str, Entry], size: int) -> None:
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        first, last = entry.data_offsets
        if first != end or last - first != entry.size:
            raise Malformed(
                f"tensor {name[:100]!r} at bytes {first} to {last}, not its {entry.size} bytes from {end} on"
            )
        end = last
    if end != size:
        raise Malformed(f"{size} bytes of tensors where its header names {end}")
