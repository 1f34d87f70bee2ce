"""The models that come with the package are small, say where they come from, and find what they are for."""

import re
from pathlib import Path

import numpy as np
import pytest

import fullyconv as fc
from fullyconv.datasets import open_dataset
from fullyconv.errors import ModelFileError
from fullyconv.models import locate, model_files, read_header
from fullyconv.models.file import PACKAGED

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in PACKAGED.glob("*.safetensors"))


def test_there_is_one_for_nuclei() -> None:
    assert "nuclei" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_its_card_says_what_it_is(name: str) -> None:
    assert locate(name).stat().st_size <= 5_000_000
    header = read_header(name)
    assert header.provenance.data_fingerprint
    assert header.provenance.steps
    card = (ROOT / "docs" / "reference" / "packaged-models.md").read_text("utf-8")
    for part in ("Data", "Licence", "Scores", "Limits"):
        assert re.search(rf"^### {part}$", card.partition(f"## `{name}`")[2], re.MULTILINE)
    assert f"<!-- table packaged-{name} -->\n| | images |" in card


def test_a_file_of_that_name_is_meant_before_the_package_s(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("nuclei").parent == PACKAGED
    Path("nuclei").write_bytes(b"mine")
    assert locate("nuclei") == Path("nuclei")
    with pytest.raises(ModelFileError, match="'nuclei' holds"):
        fc.load("nuclei")


@pytest.mark.parametrize("inside", ["model.safetensors", "fold-1/model.safetensors"])
def test_a_folder_of_that_name_is_meant_if_a_model_is_in_it(inside: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nuclei/images").mkdir(parents=True)  # such as the data, or what was predicted
    assert locate("nuclei").parent == PACKAGED
    assert model_files("nuclei") == (locate("nuclei"),)
    (tmp_path / "nuclei" / inside).parent.mkdir(exist_ok=True)
    (tmp_path / "nuclei" / inside).touch()
    assert locate("nuclei") == Path("nuclei")


@pytest.mark.parametrize("name", ["nuclei.safetensors", "./nothing", "../nuclei", "folder/nuclei", "Nuclei?"])
def test_other_paths_stay_what_they_are(name: str) -> None:
    assert locate(name) == Path(name)
    with pytest.raises(ModelFileError, match="cannot be read"):
        fc.load(name)


def test_it_finds_bright_and_dark_nuclei() -> None:
    """Blurred discs, brighter than a dark ground as under fluorescence."""
    rows, columns = np.mgrid[:160, :160]
    field = np.zeros((160, 160))
    for row, column in ((40, 50), (110, 100), (60, 120)):
        field += 1 / (1 + np.exp((np.hypot(rows - row, columns - column) - 11) / 1.5))
    noise = np.random.default_rng(0).normal(0, 2, field.shape)
    image = np.clip(12 + 90 * field + noise, 0, 255).astype(np.uint8)
    labels = fc.predict("nuclei", np.repeat(image[..., None], 3, 2), precision="f32").labels
    true = field > 0.5
    assert (labels[true] == 1).mean() > 0.8
    assert (labels[~true] == 0).mean() > 0.97


def test_it_scores_on_real_images_as_its_header_says(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "nuclei")
    stated = read_header("nuclei").provenance
    assert stated.data_fingerprint == dataset.fingerprint()
    scores = fc.evaluate("nuclei", dataset, split="val").scores
    assert scores.mean_iu == pytest.approx(stated.scores["mean_iu"], abs=2e-3)  # trained in bfloat16
