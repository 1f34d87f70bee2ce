"""The program that decodes images for the server: each in a process of its own, with little of everything.

It reads one line of JSON per image and answers with one. It is run by path, so that it loads no more than
`fullyconv.images`: from such a small process a new one is forked in milliseconds.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fullyconv.errors import FullyconvError, ImageError, MachineError
from fullyconv.images import ImageSource, open_image

_CACHE = 2**25
_BAND = 2**22  # pixels that are decoded and written at a time
_LONGEST = 2**16  # bytes of an answer
_BEYOND = 5  # seconds by which time on the clock may exceed time of the processor, on a busy machine


def main() -> None:
    """Answer one line after the other until there are no more."""
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(_apart(json.loads(line))) + "\n")
        sys.stdout.flush()


def _apart(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job in a process of its own; whatever happens to that is its answer."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(json.dumps(_guarded(job)).encode())
            os._exit(0)
        finally:
            os._exit(1)  # whatever is raised: this is a copy of the program, and must not go on as that
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read(_LONGEST)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        answer: dict[str, Any] = json.loads(said)
        return answer
    if status in (-signal.SIGXCPU, -signal.SIGALRM):
        given, expected = f"an image that takes over {job['seconds']} s to decode", "one that takes less"
    else:
        given, expected = "an image on which the decoder broke down", "an undamaged image"
    return _error(ImageError(given, expected, "export the file again, best as PNG or tiled TIFF"))


def _guarded(job: dict[str, Any]) -> dict[str, Any]:
    seconds, size = job["seconds"], job["bytes"]
    _limit(resource.RLIMIT_CPU, seconds, seconds + 1)  # between the two comes the signal that says why
    _limit(resource.RLIMIT_AS, size)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, job["file_bytes"])
    signal.alarm(seconds * 2 + _BEYOND)
    source = Path(job["source"])
    try:
        with open_image(source, cache=_CACHE, max_pixels=job["pixels"]) as image:
            return _write(image, Path(job["target"]), job["pixels"])
    except FullyconvError as error:
        return _error(error, str(source))
    except MemoryError:
        return _error(MachineError("an image that takes too much memory", "a smaller one", "cut it in parts"))


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    most = resource.getrlimit(kind)[1]
    hard = soft if hard is None else hard
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(kind, (soft, hard))


def _write(image: ImageSource, target: Path, pixels: int) -> dict[str, Any]:
    height, width = image.size
    if height * width > pixels:
        raise ImageError(
            f"an image of {height}×{width} = {height * width} pixels",
            f"at most {pixels}",
            "cut it in parts, or start the server with a larger --max-megapixels",
        )
    rows = max(image.chunk[0], _BAND // width // image.chunk[0] * image.chunk[0])
    with target.open("xb") as file:
        shape = (height, width, image.channels)
        header = {"descr": image.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for top in range(0, height, rows):
            file.write(image.read(slice(top, top + rows)).data)
    place = image.georeference
    return {"crs": place.crs, "transform": place.transform} if place else {}


def _error(error: FullyconvError, path: str = "") -> dict[str, Any]:
    kind = "MachineError" if isinstance(error, MachineError) else "ImageError"
    parts = (error.given, error.expected, error.fix)
    # Where the server keeps uploads is no client's business.
    return {"error": [kind, *(part.replace(path, "the image") if path else part for part in parts)]}


if __name__ == "__main__":
    main()
