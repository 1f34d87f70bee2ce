"""Of this machine: what it has, and a story to see it work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fullyconv.progress import Lines, Progress

if TYPE_CHECKING:
    from fullyconv.demo.story import Story
    from fullyconv.doctor import Diagnosis


def doctor() -> Diagnosis:
    """Show versions, processor features, memory, disk, GPU and missing optional parts.

    Examples
    --------
    fullyconv doctor
    """
    from fullyconv.doctor import diagnose

    return diagnose()


def demo(
    *,
    out: Path = Path("demo"),
    minutes: float = 2.0,
    scenes: int = 300,
    seed: int = 0,
    progress: Progress | None = None,
) -> Story:
    """Tell the method's story on handwritten digits, offline, in under five minutes on two cores.

    Parameters
    ----------
    out
        A new folder for everything that is written.
    minutes
        For the training of the segmentation network.
    scenes
        How many scenes are written.
    seed
        Of everything.

    Examples
    --------
    fullyconv demo --out demo
    """
    from fullyconv.demo.story import tell

    return tell(out, minutes=minutes, scenes=scenes, seed=seed, progress=progress or Lines())
