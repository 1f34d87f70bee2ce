"""Bodies of requests: bounded before anything reads them, and kept on disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fullyconv.errors import InputError
from fullyconv.server.limits import Limits
from fullyconv.server.problems import Problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "image"
_AROUND = 2**14  # bytes that may surround the image in a form


class BoundedBodies:
    """Bounds bodies in size and time, each and all together; an ASGI middleware.

    Parameters
    ----------
    app
        Reads the bodies.
    limits
        The bounds.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._held = 0  # bytes of all bodies that somebody still works on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body in bounds."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        claimed = Headers(scope=scope).get("content-length", "0")  # digits, or h11 has refused it
        if int(claimed) > self._limits.upload + _AROUND:
            await self._too_large().response()(scope, receive, send)
            return
        held, more, began = 0, True, time.monotonic()

        async def receive_bounded() -> Message:
            nonlocal held, more
            if not more:  # what comes now is the end of the connection, which may take its time
                return await receive()
            most = self._limits.pause + held / self._limits.rate - (time.monotonic() - began)
            try:
                message = await asyncio.wait_for(receive(), max(0.0, min(most, self._limits.pause)))
            except TimeoutError:
                raise Problem(
                    408, InputError("a body that comes too slowly", "all of it, soon", "send it again")
                ) from None
            size = len(message.get("body", b""))
            held, self._held = held + size, self._held + size
            more = message.get("more_body", False)
            if held > self._limits.upload + _AROUND:
                raise self._too_large()
            if self._held > self._limits.uploads:
                raise Problem(
                    429,
                    InputError("more uploads than there is room for", "fewer at a time", "come again soon"),
                    {"Retry-After": "5"},
                )
            return message

        try:
            await self._app(scope, receive_bounded, send)
        finally:
            self._held -= held

    def _too_large(self) -> Problem:
        most = self._limits.upload
        return Problem(
            413,
            InputError(
                "a body that is too large",
                f"at most {most} bytes",
                "send a smaller image, or start the server with a larger --max-upload",
            ),
        )


async def keep(request: Request, target: Path) -> None:
    """Write the image in a request to a file, as it comes: the body itself, or the field ``image`` of a form.

    Raises
    ------
    Problem
        There is none, or the body is of another kind.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"multipart/form-data":
        pieces = _image_of(request, options.get(b"boundary", b""))
    elif not kind or kind == b"application/octet-stream" or kind.startswith(b"image/"):
        pieces = request.stream()
    else:
        raise Problem(
            415,
            InputError(
                f"a body of type {kind.decode('latin-1'):.80}",
                "an image, or a form with one",
                f"send the header Content-Type: application/octet-stream, or a form: -F {FIELD}=@FILE",
            ),
        )
    with target.open("xb") as file:
        async for piece in pieces:
            await run_in_threadpool(file.write, piece)


async def _image_of(request: Request, boundary: bytes) -> AsyncIterator[bytes]:
    """Yield the bytes of the one image in a form."""
    if not boundary:
        raise _no_image(400, "a form without a boundary")
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
            yield form.take()
        parser.finalize()
    except FormParserError as error:
        raise _no_image(400, f"a form that cannot be read ({error})") from error
    if not form.is_whole:
        raise _no_image(400, "a form that is cut off")
    if form.images != 1:
        raise _no_image(422, f"a form with {form.images} files called {FIELD}")


def _no_image(status: int, given: str) -> Problem:
    return Problem(status, InputError(given, f"a form with one file called {FIELD}", f"-F {FIELD}=@FILE"))


class _Form:
    """What a parser tells of a form: the bytes of its image; other parts are read past."""

    def __init__(self) -> None:
        self.images, self.is_whole = 0, False
        self._header, self._value, self._disposition = bytearray(), bytearray(), b""
        self._is_image = False
        self._bytes = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add,
            "on_end": self._end,
        }

    def take(self) -> bytes:
        """Return the bytes of the image that have come since."""
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken

    def _begin_part(self) -> None:
        self._disposition, self._is_image = b"", False

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._is_image = options.get(b"name") == FIELD.encode() and b"filename" in options
        self.images += self._is_image

    def _add(self, data: bytes, start: int, end: int) -> None:
        if self._is_image:
            self._bytes += data[start:end]

    def _end(self) -> None:
        self.is_whole = True
