"""Fixtures every test file may use."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

# What is remembered of datasets stays out of the user's own cache, and of other tests.
os.environ["FULLYCONV_CACHE"] = ""
# Converted networks, too: those of another state of the code may lie in the user's cache.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="fullyconv-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# Where tests run in the background, Ctrl-C is ignored, which the library respects; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the checkout; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no folder {SHARED_DATA.name} with real images beside the checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a network learns in seconds: bright discs on dark noise, 12 images of varying sizes."""
    root = tmp_path_factory.mktemp("discs")
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for number in range(12):
        height, width = rng.integers(40, 90, 2)
        rows, columns = np.mgrid[:height, :width]
        row, column, radius = rng.integers(10, height - 10), rng.integers(10, width - 10), rng.integers(6, 16)
        disc = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        image = rng.normal(60, 15, (height, width, 3)) + disc[..., None] * rng.integers(60, 120, 3)
        PIL.Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{number:02}.png")
        PIL.Image.fromarray((disc * 255).astype(np.uint8)).save(root / "masks" / f"{number:02}.png")
    return root
