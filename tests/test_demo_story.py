"""What the demonstration says at its end; the demonstration itself is `make demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from fullyconv.demo.story import Story
from fullyconv.evaluation import Evaluation
from fullyconv.metrics import ConfusionMatrix


class Scored:
    def __str__(self) -> str:
        return "the scores beside the constant predictor's"

    def to_dict(self) -> dict[str, Any]:
        return {"mean_iu": 0.5}


def told(**pictures: tuple[Path, ...]) -> Story:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([[0, 1]]), np.array([[0, 1]]), 255)
    return Story(0.98, cast(Evaluation, Scored()), matrix.scores(), 4.0, pictures, 200.0)


def test_the_end_says_what_each_picture_shows_and_which_colour_is_which_digit() -> None:
    story = told(heatmaps=(Path("demo/heatmaps.png"),), nothing=(), scenes=(Path("a.png"), Path("b.png")))
    lines = str(story).splitlines()
    assert lines[0] == "the scores beside the constant predictor's"
    start = lines.index("  heatmaps:")
    assert lines[start + 1 : -1] == ["    demo/heatmaps.png", "  scenes:", "    a.png", "    b.png"]
    assert lines[-1].startswith("colours: ")
    assert lines[-1].count("#") == 10
    assert json.loads(json.dumps(story.to_dict()))["pictures"]["scenes"] == ["a.png", "b.png"]
