import numpy as np
import pytest
import torch

from fullyconv.engines import PrecisionChoice, compile_model
from fullyconv.errors import ConfigError, ImageError
from fullyconv.inference import Predictor, predict
from fullyconv.models import Normalization, UNet, save
from fullyconv.progress import Quiet


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = UNet(3, 3, widths=(6, 8, 10), normalization=Normalization((100.0,), (50.0,))).eval()
    with torch.no_grad():
        model.head.weight.normal_()  # spread the scores, so that labels vary
    return model


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (150, 203, 3)).astype(np.uint8)


def test_labels_are_the_arg_max_of_the_network_s_scores(model, image):
    with torch.inference_mode():
        scores = model(torch.from_numpy(image).permute(2, 0, 1)[None].float())[0]
    prediction = predict(model, image, precision="f32")
    assert np.array_equal(prediction.labels, scores.argmax(0).numpy())
    assert prediction.labels.dtype == np.uint8
    assert prediction.probabilities is None


def test_tiles_give_what_the_whole_image_gives(model, image):
    whole = predict(model, image, precision="f32", tile=None, probabilities=True)
    tiled = predict(model, image, precision="f32", tile=96, probabilities=True)
    assert np.abs(whole.probabilities - tiled.probabilities).max() < 1e-5
    margin = np.sort(whole.probabilities, 2)
    clear = margin[..., -1] - margin[..., -2] > 1e-3
    assert np.array_equal(whole.labels[clear], tiled.labels[clear])


def test_probabilities_are_a_distribution_over_classes(model, image):
    prediction = predict(model, image[:20, :30], precision="f32", probabilities=True)
    assert prediction.probabilities.shape == (20, 30, 3)
    assert np.allclose(prediction.probabilities.sum(2), 1, atol=1e-6)
    assert np.array_equal(prediction.probabilities.argmax(2), prediction.labels)


def test_files_and_arrays_and_paths_are_the_same(model, image, tmp_path):
    from fullyconv.images import write_image

    save(model, tmp_path / "model.safetensors")
    write_image(tmp_path / "image.png", image)
    by_path = predict(tmp_path / "model.safetensors", tmp_path / "image.png", precision="f32")
    assert np.array_equal(by_path.labels, predict(model, image, precision="f32").labels)
    assert by_path.overlay().shape == image.shape


def test_gray_images_are_repeated_and_other_types_refused(model, image):
    gray = image[..., 0]
    expected = predict(model, np.repeat(gray[..., None], 3, 2), precision="f32").labels
    assert np.array_equal(predict(model, gray, precision="f32").labels, expected)
    with pytest.raises(ImageError):
        predict(model, image.astype(np.uint16))


def test_a_tile_without_room_for_the_halo_is_refused_with_the_smallest(model, image):
    with pytest.raises(ConfigError):
        predict(model, image, tile=8)


def test_the_precision_is_chosen_once_and_said(model, image, monkeypatch):
    class Heard(Quiet):
        lines = ()

        def say(self, line):
            self.lines += (line,)

    asked = []
    monkeypatch.setattr(
        "fullyconv.inference.runners.choose_precision",
        lambda model, window, **_: (asked.append(window), PrecisionChoice("f32", 0.9995))[1],
    )
    heard = Heard()
    predictor = Predictor(model, progress=heard)
    predictor.predict(image)
    predictor.predict(image[:20])
    (window,) = asked
    assert np.array_equal(window, image)
    assert heard.lines == ("precision: f32; bf16 agrees with f32 on 99.95% of labels (--precision)",)


def test_what_was_compiled_to_compare_precisions_predicts(model, image, monkeypatch):
    made = []

    def compiled(*arguments, **options):
        made.append(options["precision"])
        return compile_model(*arguments, **options)

    monkeypatch.setattr("fullyconv.engines._choice.has_native_bf16", lambda: True)
    for place in ("fullyconv.engines._choice", "fullyconv.inference.runners"):
        monkeypatch.setattr(f"{place}.compile_model", compiled)
    Predictor(model).predict(image)
    assert made == ["f32", "bf16"]
