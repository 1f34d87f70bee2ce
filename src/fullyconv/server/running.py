"""Running the server: until a signal ends it, or while a block of Python runs."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvicorn

from fullyconv.errors import ConfigError, MachineError
from fullyconv.models import SegmentationModel, assemble
from fullyconv.progress import Progress, Quiet
from fullyconv.server.access import Access
from fullyconv.server.application import create_app
from fullyconv.server.connections import connection_class
from fullyconv.server.limits import Limits
from fullyconv.server.service import Service

_KEEP_ALIVE = 5  # seconds between a client's requests
_BACKLOG = 1024


@dataclass(frozen=True)
class Served:
    """What a server has done.

    Parameters
    ----------
    requests
        How many it has answered.
    """

    requests: int

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers ready for JSON."""
        return {"requests": self.requests}

    def __str__(self) -> str:
        return f"answered {self.requests} requests"


class Server:
    """A server that is bound to its address, with all networks ready.

    Parameters
    ----------
    models
        Model files, or folders of folds.
    host, port
        Where to listen; port 0 takes a free one.
    access
        Who may ask.
    limits
        What it takes.
    workers
        How many images are computed at one time.
    options
        Of `fullyconv.inference.Predictor`.

    Attributes
    ----------
    url : str
        Where it listens.

    Raises
    ------
    ModelFileError
        A file is no model, or damaged; nothing listens then.
    ConfigError
        Two models of one name, an address that cannot be listened at, or one that others reach, and no token.
    MachineError
        The system cannot bound what a process takes, so nothing could be decoded safely.
    """

    def __init__(
        self,
        models: Sequence[str | Path],
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        access: Access | None = None,
        limits: Limits | None = None,
        workers: int = 1,
        **options: Any,
    ) -> None:
        access, limits = access or Access(), limits or Limits()
        access.require_for(host)
        if find_spec("resource") is None:
            raise MachineError(
                "a system that cannot bound what a process takes",
                "Linux or macOS, since images of strangers are decoded in such processes",
                "serve from there, from a container, or from WSL",
            )
        if workers < 1:
            raise ConfigError(f"{workers} workers", "1 or more", "leave --workers out")
        self.service = Service(load_models(models), limits, workers=workers, **options)
        self.service.warm()
        self._socket = _listen(host, port)
        address, taken = self._socket.getsockname()[:2]
        self.url = f"http://{f'[{address}]' if ':' in address else address}:{taken}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                create_app(self.service, access=access, limits=limits),
                http=connection_class(limits),
                loop="asyncio",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=limits.finish,
                backlog=_BACKLOG,
            )
        )

    def run(self) -> Served:
        """Serve until SIGTERM or SIGINT; what was begun is finished first, for as long as the limits say."""
        # uvicorn raises the signal again when all is done, for whoever handled it before: nobody has to.
        before = {each: signal.signal(each, _ignored) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._serve()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
        return Served(self._server.server_state.total_requests)

    @contextmanager
    def background(self) -> Iterator[str]:
        """Serve on a thread while the block runs, at the URL given to it."""
        thread = threading.Thread(target=self._serve, name="fullyconv-serve", daemon=True)
        thread.start()
        try:
            yield self.url
        finally:
            self._server.should_exit = True
            thread.join()

    def _serve(self) -> None:
        with self._socket:
            asyncio.run(self._server.serve(sockets=[self._socket]))


def serve(models: Sequence[str | Path], *, progress: Progress | None = None, **options: Any) -> Served:
    """Serve models over HTTP until a signal ends it; see `Server` for the options and errors."""
    progress = progress or Quiet()
    server = Server(models, **options)
    progress.say(f"serving {', '.join(server.service.models)} at {server.url} (Ctrl+C ends it)")
    return server.run()


def load_models(paths: Sequence[str | Path]) -> dict[str, SegmentationModel]:
    """Load model files, or folders of folds, whose networks are averaged: name -> network.

    A model is called as its file or folder; one called "model", as training writes it, as what it is in.

    Raises
    ------
    ConfigError
        There are none, or two of one name.
    ModelFileError
        A file is no model, or damaged.
    """
    named = [(_name(Path(path)), path) for path in paths]
    doubled = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if doubled or not named:
        raise ConfigError(
            f"several models called {', '.join(doubled)}" if doubled else "no model",
            "one or more models, each with a name of its own",
            "rename a file" if doubled else "name model files",
        )
    return {name: assemble(path) for name, path in named}


def _name(path: Path) -> str:
    return path.stem if path.stem != "model" else path.resolve().parent.name or path.stem


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--host {host} --port {port}, where nothing can listen ({error})",
            "an address of this machine and a free port",
            "pass another --port, or 0 for any that is free",
        ) from error


def _ignored(*_: object) -> None:
    """Do nothing."""
