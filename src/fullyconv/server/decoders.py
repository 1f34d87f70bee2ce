"""Decoding what strangers send: never in the server's own process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullyconv.errors import ImageError, MachineError
from fullyconv.outlines import Affine
from fullyconv.server.limits import Limits

_PROGRAM = Path(__file__).with_name("_decode.py")
_KEPT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "PROJ_LIB", "GDAL_DATA")
_LONGEST_VALUE = 8 * 4  # bytes of a pixel: 4 channels of float64
_PIPES = (0, 1)  # stdin and stdout
_LATE = 10.0  # seconds by which the program may answer later than the process it forks is ended


@dataclass(frozen=True)
class Place:
    """Where an image lies on the ground, as `fullyconv.outlines.to_geojson` takes it."""

    transform: Affine
    crs: str | None


class Decoder:
    """A small program beside the server that decodes one image at a time, each in a process of its own.

    What a file does to its decoder ends that process: taking too long, too much memory, or breaking it.

    Parameters
    ----------
    limits
        What a file may take.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._program: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the program, so that the first image need not wait for it."""
        if self._program is None or self._program.returncode is not None:
            quiet = {name: os.environ[name] for name in _KEPT if name in os.environ}
            self._program = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", str(_PROGRAM)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=quiet | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # what ends the server at the keyboard lets it finish first
            )

    async def decode(self, source: Path, target: Path) -> Place | None:
        """Decode a file to an array on disk, which NumPy can map.

        Parameters
        ----------
        source
            An image of any format.
        target
            H×W×C in the image's own type, as ``.npy``.

        Returns
        -------
        Place or None
            Where the image lies, if it says so.

        Raises
        ------
        ImageError
            It is no image, damaged, too large, or takes too long.
        MachineError
            It takes more memory than it may.
        """
        limits = self._limits
        job = {
            "source": str(source),
            "target": str(target),
            "pixels": limits.pixels,
            "seconds": limits.decode_seconds,
            "bytes": limits.decode_bytes,
            "file_bytes": limits.pixels * _LONGEST_VALUE,
        }
        answer = await self._ask(json.dumps(job).encode() + b"\n")
        if "error" in answer:
            kind, *parts = answer["error"]
            raise (MachineError if kind == "MachineError" else ImageError)(*parts)
        if "transform" not in answer:
            return None
        a, b, c, d, e, f = answer["transform"]
        return Place((a, b, c, d, e, f), answer["crs"] or None)

    async def close(self) -> None:
        """End the program and whatever it is doing."""
        program, self._program = self._program, None
        if program is None:
            return
        if program.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
        # asyncio waits for the ends of its pipes, too, which a process that left the group may hold. Closing
        # all of its transport would collect the program's end behind the back of asyncio, which complains.
        for pipe in _PIPES:
            program._transport.get_pipe_transport(pipe).close()  # type: ignore[attr-defined]  # asyncio offers no other way to the pipes
        await program.wait()

    async def _ask(self, line: bytes) -> dict[str, Any]:
        await self.start()
        assert self._program is not None
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        try:
            self._program.stdin.write(line)
            said = await asyncio.wait_for(
                self._program.stdout.readline(), 2 * self._limits.decode_seconds + _LATE
            )
            answer: dict[str, Any] = json.loads(said)
            return answer
        except (TimeoutError, OSError, ValueError) as error:
            await self.close()
            raise ImageError(
                "an image on which decoding broke down", "an undamaged image", "export the file again"
            ) from error
        except asyncio.CancelledError:  # nobody waits for it any more
            await self.close()
            raise
