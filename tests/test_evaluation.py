import json
import math

import numpy as np
import PIL.Image
import pytest
import torch

from fullyconv import evaluation as module
from fullyconv.datasets import open_dataset
from fullyconv.errors import ConfigError, DataError
from fullyconv.evaluation import Evaluation, evaluate, verdict
from fullyconv.evaluation._verdict import likely_cause
from fullyconv.inference import Predictor
from fullyconv.labels import ClassTable
from fullyconv.metrics import ConfusionMatrix, boundary_sums, calibration_sums, region_sums, score_boundaries
from fullyconv.models import UNet


class Threshold(UNet):
    """Answers class 1 where the first channel is above 100: a network whose scores are known."""

    def scores(self, images):
        bright = images[:, :1] - 100
        return torch.cat([torch.zeros_like(bright), bright], 1)


def write(folder, images, masks, instances=()):
    for name, arrays in (("images", images), ("masks", masks), ("instances", instances)):
        if len(arrays):
            (folder / name).mkdir(parents=True)
        for number, array in enumerate(arrays):
            PIL.Image.fromarray(array).save(folder / name / f"{number}.png")


def answered(image):
    return (image[..., 0] > 100).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20 + number, 31, 3)).astype(np.uint8) for number in range(3)]
    masks = [(image[..., 0] > 120).astype(np.uint8) for image in images]
    masks[0][:4] = 255
    write(tmp_path / "data", images, masks)
    return tmp_path / "data", images, masks


@pytest.fixture
def model():
    return Threshold(2, 3, widths=(2, 2))


def test_scores_are_of_one_matrix_over_all_images(folder, model):
    data, images, masks = folder
    expected = ConfusionMatrix(2)
    for image, mask in zip(images, masks, strict=True):
        expected.update(mask, answered(image), 255)
    evaluation = evaluate(model, data)
    assert evaluation.scores == expected.scores()
    assert evaluation.constant == expected.constant_predictor()
    assert np.array_equal(evaluation.counts, expected.counts)
    assert (evaluation.images, evaluation.split) == (3, "all")


def test_by_default_only_the_confusion_matrix_is_counted(folder, model, monkeypatch):
    """Evaluation within training must cost no more than predicting and counting."""

    def forbidden(*_, **__):
        raise AssertionError("asked for more")

    for name in ("boundary_sums", "find_objects", "calibration_sums", "IntensityHistogram"):
        monkeypatch.setattr(module._run, name, forbidden)
    monkeypatch.setattr(module._evaluation, "resample", forbidden)
    evaluation = evaluate(model, folder[0])
    assert math.isfinite(evaluation.scores.mean_iu + evaluation.constant.mean_iu)


def test_every_measure_is_that_of_its_images(folder, model):
    data, images, masks = folder
    evaluation = evaluate(model, data, boundaries=True, calibration=True, threshold=True)
    bounds = sum(
        boundary_sums(mask, answered(image), 2, 255) for image, mask in zip(images, masks, strict=True)
    )
    assert evaluation.values["boundary_f1"] == score_boundaries(bounds)["boundary_f1"]
    predictor = Predictor(model, precision="f32")
    confidences = sum(
        calibration_sums(predictor.predict(image, probabilities=True).probabilities, mask, 255)
        for image, mask in zip(images, masks, strict=True)
    )
    assert evaluation.calibration.sum(0) == pytest.approx(confidences)
    assert "object_f1" not in evaluation.values


def test_objects_are_the_dataset_s_instances_where_it_has_them(tmp_path):
    """Two touching squares are one region, but two objects of the file."""
    image, other = np.zeros((20, 31, 3), np.uint8), np.full((20, 31, 3), 40, np.uint8)
    mask, instances = np.zeros((20, 31), np.uint8), np.zeros((20, 31), np.uint16)
    image[4:12, 4:20], other[4:12, 4:20], mask[4:12, 4:20] = 200, 150, 1
    instances[4:12, 4:12], instances[4:12, 12:20] = 1, 2
    write(tmp_path / "numbered", [image, other], [mask, mask], [instances, instances])
    write(tmp_path / "plain", [image, other], [mask, mask])
    model = Threshold(2, 3, widths=(2, 2))
    numbered = evaluate(model, tmp_path / "numbered", objects="regions")
    plain = evaluate(model, tmp_path / "plain", objects="regions")
    assert numbered.values["object_f1"] == 0
    assert plain.values["object_f1"] == 1
    assert numbered.to_dict()["object_source"] == "regions"
    with pytest.raises(ConfigError, match="'regions', 'split' or None"):
        evaluate(model, tmp_path / "plain", objects="all")


def test_the_threshold_is_chosen_on_the_training_images_and_says_so(tmp_path, model):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20, 30, 1)).astype(np.uint8).repeat(3, 2) for _ in range(4)]
    write(tmp_path / "train", images[:2], [(image[..., 0] >= 60).astype(np.uint8) for image in images[:2]])
    write(tmp_path / "val", images[2:], [(image[..., 0] >= 90).astype(np.uint8) for image in images[2:]])
    evaluation = evaluate(model, tmp_path, threshold=True)
    rival = evaluation.rivals[1]
    assert "from an intensity of 60 on, the best for 2 training images" in rival.description
    expected = ConfusionMatrix(2)
    for image in images[2:]:
        truth, prediction = ((image[..., 0] >= limit).astype(np.uint8) for limit in (90, 60))
        expected.update(truth, prediction, 255)
    assert rival.scores == expected.scores()
    on_itself = evaluate(model, tmp_path, split="train", threshold=True)
    assert on_itself.rivals[1].scores.mean_iu == 1
    assert "the best for 2 of these very images" in str(on_itself)


def test_the_split_is_chosen_or_named(tmp_path, model):
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 2), ("test", 3)):
        images = [rng.integers(0, 256, (20, 30, 3)).astype(np.uint8) for _ in range(count)]
        write(tmp_path / split, images, [answered(image) for image in images])
    assert evaluate(model, tmp_path).split == "val"
    assert evaluate(model, tmp_path, split="test").images == 3
    with pytest.raises(
        DataError, match=r"no images in split 'valid'.*expected one of \['test', 'train', 'val'\]"
    ):
        evaluate(model, tmp_path, split="valid")


def test_other_classes_are_refused(folder):
    with pytest.raises(DataError, match="expected the 5 of the model"):
        evaluate(UNet(5, 3, widths=(2, 2)), folder[0])


def test_absent_classes_are_shown_as_not_available(folder):
    entries = [
        f'[[class]]\nname = "{name}"\ncolor = [{k}, 0, 0]'
        for k, name in enumerate(("dark", "bright", "none"))
    ]
    (folder[0] / "classes.toml").write_text("\n".join(["ignore = 255", *entries]))

    class Three(Threshold):
        def scores(self, images):
            return torch.cat([super().scores(images), torch.full_like(images[:, :1], -1e9)], 1)

    shown = str(evaluate(Three(["dark", "bright", "none"], 3, widths=(2, 2)), folder[0]))
    row = next(line for line in shown.splitlines() if line.startswith("none"))
    assert row.split() == ["none", *["n/a"] * 4, "0.00%"]


def test_json_has_everything_and_is_json(folder, model):
    evaluation = evaluate(
        model, folder[0], boundaries=True, objects="split", calibration=True, threshold=True, seed=7
    )
    answer = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    for name in ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu"):
        low, high = answer["intervals"][name]
        assert low <= answer[name] <= high
    for name in ("boundary_f1", "average_precision", "expected_calibration_error"):
        assert 0 <= answer[name] <= 1
        assert len(answer["intervals"][name]) == 2
    assert np.shape(answer["intervals"]["class_iu"]) == (2, 2)
    assert [image["name"] for image in answer["per_image"]] == ["0", "1", "2"]
    assert answer["per_image"][1]["mean_iu"] == pytest.approx(np.mean(answer["per_image"][1]["class_iu"]))
    assert np.sum(answer["confusion"]) == sum(answer["class_pixels"])
    assert answer["resampling"]["seed"] == 7
    assert answer["constant_predictor"]["mean_iu"] < answer["threshold_predictor"]["mean_iu"]
    assert "ignored pixels count nowhere" in answer["rules"]


def test_the_table_says_rules_intervals_rivals_and_classes(folder, model):
    shown = str(evaluate(model, folder[0], boundaries=True, objects="regions", threshold=True, seed=5))
    assert "ignored pixels count nowhere; a class without true pixels is n/a" in shown
    assert "resampling images (2000 times, seed 5)" in shown
    for heading in ("this model", "constant", "threshold", "precision", "recall", "boundary F1", "pixels"):
        assert heading in shown
    (row,) = [line for line in shown.splitlines() if line.startswith("mean IU")]
    assert row.count("(") == 1
    assert max(map(len, shown.splitlines()[2:])) < 120


def test_one_image_has_no_interval(tmp_path, folder, model):
    write(tmp_path / "two", folder[1][:2], folder[2][:2])
    dataset = open_dataset(tmp_path / "two")
    one = type(dataset)(**{**vars(dataset), "samples": dataset.samples[1:]})
    evaluation = evaluate(model, one)
    assert evaluation.intervals == {}
    assert " to " not in str(evaluation).replace("0.5 to", "")
    json.dumps(evaluation.to_dict(), allow_nan=False)


def made(*matrices):
    counts = np.array(matrices)
    names = tuple(f"image {number}" for number in range(len(counts)))
    return Evaluation(ClassTable(("sky", "road", "car")), "val", names, counts.sum(0), region_sums(counts))


GOOD = [[90, 5, 5], [5, 90, 5], [5, 5, 90]]


def test_a_good_model_is_no_warning():
    assert verdict(made(GOOD, GOOD, GOOD)) is None


@pytest.mark.parametrize(
    ("matrix", "cause"),
    [
        ([[900, 0, 0], [50, 0, 0], [50, 0, 0]], "answers 'sky' for 100.0% of the pixels"),
        ([[3, 90, 0], [90, 3, 0], [0, 30, 3]], "'sky' and 'road' are mostly answered as each other"),
        ([[500, 480, 0], [8, 9, 0], [3, 0, 0]], "never answers 'car'"),
        ([[500, 240, 240], [8, 9, 1], [3, 0, 4]], "trained too briefly"),
    ],
)
def test_a_model_that_beats_nothing_is_said_aloud_with_its_cause(matrix, cause):
    evaluation = made(matrix, matrix)
    said = verdict(evaluation)
    assert "WARNING: the model does not beat always answering" in said
    assert cause in said
    assert said in str(evaluation)
    assert evaluation.to_dict()["verdict"] == said


def test_classes_are_exchanged_only_where_each_is_answered_as_the_other():
    one_way = np.array([[10, 90, 5], [0, 100, 0], [0, 0, 7]])
    assert "trained too briefly" in likely_cause(one_way, ("sky", "road", "car"))


def test_a_gain_within_chance_is_called_so():
    worse = [[900, 60, 60], [50, 0, 0], [50, 0, 0]]
    better = [[900, 0, 0], [45, 5, 0], [45, 0, 5]]
    assert "not clearly better" in verdict(made(worse, better, better, worse, better))


def test_the_gain_is_the_difference_of_the_scores():
    evaluation = made(GOOD, [[50, 0, 0], [0, 20, 0], [1, 9, 20]])
    gain, low, high = evaluation.gains["constant"]
    assert gain == pytest.approx(evaluation.scores.mean_iu - evaluation.constant.mean_iu)
    assert low <= gain <= high


def test_images_without_masks_are_not_scored(folder, model):
    dataset = open_dataset(folder[0])
    bare = [type(sample)(**{**vars(sample), "mask": None}) for sample in dataset.samples]
    some = type(dataset)(**{**vars(dataset), "samples": (*dataset.samples[:2], bare[2])})
    assert evaluate(model, some).images == 2
    none = type(dataset)(**{**vars(dataset), "samples": tuple(bare)})
    with pytest.raises(DataError, match="without masks"):
        evaluate(model, none)
