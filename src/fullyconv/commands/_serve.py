"""A model over HTTP."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fullyconv.errors import ConfigError, MachineError
from fullyconv.progress import Lines, Progress

if TYPE_CHECKING:
    from fullyconv.server import Served

TOKEN = "FULLYCONV_TOKEN"
PARTS = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    *models: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    allow_host: tuple[str, ...] = (),
    allow_origin: tuple[str, ...] = (),
    flips: Literal["none", "horizontal", "both"] = "none",
    engine: Literal["auto", "openvino", "torch", "onnx"] = "auto",
    precision: Literal["f32", "bf16"] = "f32",
    workers: int = 1,
    threads: int | None = None,
    max_memory: str | None = None,
    max_upload: int = 256,
    max_megapixels: int = 64,
    max_waiting: int = 32,
    progress: Progress | None = None,
) -> Served:
    """Serve models over HTTP: a page to drop images on, and an interface for programs (/openapi.json).

    Nothing that is sent is kept, and nothing leaves the machine. SIGTERM and Ctrl+C end it, after what was
    begun is finished, for which it has five minutes.

    Parameters
    ----------
    models
        Model files, or folders of train --folds. Each is called as its file, or as the folder it is in where
        the file is model.safetensors.
    host
        The address to listen at. One that other machines reach needs a token.
    port
        The port; 0 takes a free one.
    token_file
        A file with the token that clients have to send (default: the variable FULLYCONV_TOKEN, if it is set).
    allow_host
        Names that clients may call this machine by, beside localhost and its address.
    allow_origin
        Other web pages that may ask, such as https://example.org (default: none).
    flips
        Average over mirror images too: left to right, or both ways, which takes two or four times as long.
    engine
        What computes; auto takes torch on a GPU, else OpenVINO.
    precision
        What to compute in: the same for every image.
    workers
        How many images are computed at one time; each worker holds every network.
    threads
        Processors for each worker (default: all).
    max_memory
        What the process may hold at most for tiles, such as 2GB (default: half of what is free).
    max_upload
        The largest body of a request, in megabytes.
    max_megapixels
        The most pixels of an image, in millions.
    max_waiting
        How many images may wait; who comes then is told when to come again.

    Examples
    --------
    fullyconv serve runs/first/model.safetensors
    """
    missing = [name for name in PARTS if find_spec(name) is None]
    if missing:
        raise MachineError(
            f"no {', '.join(missing)}",
            "the optional part of fullyconv that serves",
            "pip install 'fullyconv[serve]'",
        )
    from fullyconv.server import Access, Limits
    from fullyconv.server import serve as serve_models

    return serve_models(
        models,
        host=host,
        port=port,
        access=Access(allow_host, allow_origin, _token(token_file)),
        limits=Limits(upload=max_upload * 10**6, pixels=max_megapixels * 10**6, waiting=max_waiting),
        workers=workers,
        flips=flips,
        engine=engine,
        precision=precision,
        threads=threads,
        max_memory=max_memory,
        progress=progress or Lines(),
    )


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN)
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--token-file {file}, which cannot be read ({error})",
            "a text file with the token",
            "make one: openssl rand -hex 32 > token",
        ) from error
