"""What the server takes, at most: of one request, of all together, and of one slow client's time."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fullyconv.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """Bounds on what a client may ask for.

    Parameters
    ----------
    upload
        Bytes of a request's body.
    uploads
        Bytes of all bodies that are kept on disk at one time.
    pixels
        Of an image; read from its header, before anything is decoded.
    waiting
        Images that wait for their turn beside the one of each worker; who comes then is told to come again.
    connections
        Open at one time; more are closed at once.
    pause
        Seconds a client may let the server wait: for the head of a request, for the next bytes of its body,
        or for taking the next bytes of an answer.
    rate
        Bytes per second that a body must bring on the average, after its first ``pause`` seconds.
    decode_seconds, decode_bytes
        Processor time and memory that decoding an image may take, in a process of its own.
    finish
        Seconds for what was begun when the server is told to end; the rest is given up.

    Raises
    ------
    ConfigError
        A bound is not above 0.
    """

    upload: int = 256 * 10**6
    uploads: int = 4 * 10**9
    pixels: int = 64 * 10**6
    waiting: int = 32
    connections: int = 500
    pause: float = 10.0
    rate: int = 16_000
    decode_seconds: int = 30
    decode_bytes: int = 2 * 2**30
    finish: int = 300

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise ConfigError(
                    f"a limit of {value} for {field.name}", "a number above 0", "leave it out, or raise it"
                )
