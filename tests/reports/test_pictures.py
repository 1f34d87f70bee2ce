import base64
from io import BytesIO

import numpy as np
import PIL.Image
import pytest

from fullyconv.labels import ClassTable
from fullyconv.reports._pictures import MISSED, SIDE, WRONG, draw_errors, draw_panels, encode

TWO, THREE = ClassTable(("ground", "cell")), ClassTable(("sky", "road", "car"))
GRAY = np.full((2, 3, 3), 100, np.uint8)


def test_errors_of_two_classes_tell_missed_from_invented():
    truth = np.array([[1, 0, 255], [1, 0, 255]], np.uint8)
    drawn = draw_errors(GRAY, truth, np.array([[0, 1, 0], [1, 0, 1]], np.uint8), TWO)
    assert tuple(drawn[0, 0]) == MISSED
    assert tuple(drawn[0, 1]) == WRONG
    assert (drawn[:, 2] == 128).all()
    assert (drawn[1, :2] == 45).all()


def test_errors_of_more_classes_are_one_colour():
    truth = np.array([[0, 1, 2], [0, 1, 2]], np.uint8)
    drawn = draw_errors(GRAY, truth, np.array([[1, 0, 0], [0, 1, 2]], np.uint8), THREE)
    assert (drawn[0] == WRONG).all()
    assert (drawn[1] == 45).all()


def test_missed_and_wrong_differ_in_lightness():
    lightness = [np.dot(color, (0.2126, 0.7152, 0.0722)) for color in (MISSED, WRONG)]
    assert abs(lightness[0] - lightness[1]) > 50


@pytest.mark.parametrize("size", [(30, 20), (900, 450)])
def test_pictures_are_small_and_say_what_they_show(size):
    image = np.random.default_rng(0).integers(0, 4000, (*size, 1)).astype(np.uint16)
    truth = np.zeros(size, np.uint8)
    truth[: size[0] // 2] = 1
    panels = draw_panels(image, truth, np.zeros_like(truth), TWO)
    assert [panel.name for panel in panels] == ["image", "truth", "prediction", "errors"]
    assert panels[1].description == "its mask: ground 50.0%, cell 50.0%"
    assert panels[3].description == "errors: 50.0% missed, 0.0% invented cell"
    for panel in panels:
        kind, data = panel.source.split(",")
        assert kind == "data:image/webp;base64"
        shown = PIL.Image.open(BytesIO(base64.b64decode(data)))
        assert max(shown.size) == min(SIDE, max(size))
        assert shown.width / shown.height == pytest.approx(size[1] / size[0], rel=0.01)


def test_an_encoded_picture_keeps_its_colours():
    shown = PIL.Image.open(
        BytesIO(base64.b64decode(encode(np.full((64, 64, 3), WRONG, np.uint8)).split(",")[1]))
    )
    assert np.abs(np.asarray(shown).astype(int) - WRONG).max() < 12
