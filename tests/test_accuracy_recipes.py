"""The recipes of the accuracy benchmark are strict, and open with what a reader wants to know."""

from pathlib import Path

import pytest

from fullyconv.training import NETWORKS, read_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "benchmarks" / "accuracy").glob("*.toml"))


def test_there_is_one_for_each_dataset():
    assert [path.stem for path in RECIPES] == ["camvid", "em-membranes", "nuclei"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_command_time_and_expected_score_and_is_read(path):
    opening = path.read_text("utf-8").split("\n\n")[0]
    assert all(line.startswith("# ") or line == "#" for line in opening.splitlines())
    for said in ("Command:", "Time:", "Expected:"):
        assert said in opening
    assert f"benchmarks/accuracy/{path.name}" in opening
    config = read_recipe(path).config
    assert config.network in NETWORKS
    assert f"{config.minutes:.0f} minutes" in opening
