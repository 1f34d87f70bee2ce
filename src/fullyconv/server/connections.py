"""Connections that may not make the server wait: uvicorn's own, with deadlines."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fullyconv.server.limits import Limits
from fullyconv.server.problems import MEDIA_TYPE, body


class Connection(H11Protocol):
    """One client's connection. It is closed when the head of a request, or taking an answer, takes too long.

    uvicorn bounds only the time between requests. Made by `connection_class`.
    """

    limits: ClassVar[Limits]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's protocol narrows it, too
        """Begin to wait for a first request; close at once what is too much."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
        else:
            self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        super().connection_lost(exc)
        self._stop_head()
        self._stop_taking()

    def data_received(self, data: bytes) -> None:
        """Read what has come; what belongs to no request that is being answered is the head of the next."""
        super().data_received(data)
        self._watch_head()

    def pause_writing(self) -> None:
        """Give the client some time to take what was sent."""
        super().pause_writing()
        self._taking = self.loop.call_later(self.limits.pause, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has taken it."""
        super().resume_writing()
        self._stop_taking()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with bytes that are no HTTP, as every other error is said."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        content = body(400, msg)
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch_head(self) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if not is_idle:
            self._stop_head()
        elif self._head is None:
            self._head = self.loop.call_later(self.limits.pause, self._give_up)

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _stop_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _give_up(self) -> None:
        self._head = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def connection_class(limits: Limits) -> type[Connection]:
    """Return what uvicorn makes connections of."""

    class Bounded(Connection):
        """A `Connection` with limits."""

    Bounded.limits = limits
    return Bounded
