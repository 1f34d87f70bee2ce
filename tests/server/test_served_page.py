"""The page in a real browser, where one is installed: from an image to what people do with its mask."""

import io
import json
import shutil
from contextlib import contextmanager

import numpy as np
import PIL.Image
import pytest
from clients import encoded

from fullyconv.images import overlay, read_image, read_mask
from fullyconv.inference import Predictor
from fullyconv.models import UNet, save
from fullyconv.server import Access, Server

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "<img src=x onerror=document.title='hacked'>"
SECRET = "0123456789abcdef"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="for tests alone: it drives Chromium")
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=BROWSER, args=quiet)
        yield browser
        browser.close()


@contextmanager
def opened(browser, url, *, complains=False, **options):
    """Open the page; it may complain of nothing, unless told so, and ask no one but its server."""
    with browser.new_context(**{"viewport": {"width": 1200, "height": 800}} | options) as context:
        page = context.new_page()
        page.set_default_timeout(90_000)
        complaints, asked = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        yield page
        assert complains or complaints == []
        assert all(each.startswith((url, f"blob:{url}")) for each in asked), asked


def give(page, *images):
    files = [{"name": name, "mimeType": "image/png", "buffer": body} for name, body in images]
    page.set_input_files("#files", files)
    page.wait_for_selector("#strip li:last-child button:is(.ready, .failed)")


def color_at(page, x, y):
    """The colour that is seen at a part of the canvas's width and height."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    seen = np.asarray(PIL.Image.open(io.BytesIO(page.locator("#canvas").screenshot())).convert("RGB"))
    return seen[int(y * seen.shape[0]), int(x * seen.shape[1])].tolist()


def near(color, expected):
    return bool((abs(np.array(color, float) - expected) <= 3).all())


@pytest.fixture(scope="module")
def plain(network):
    """An image of one colour, of which the network is as sure as it gets; and what it says of it."""
    predictor = Predictor(network, engine="torch", precision="f32")
    colors = np.random.default_rng(0).integers(20, 230, (20, 3)).astype(np.uint8)
    images = [np.broadcast_to(color, (64, 96, 3)).copy() for color in colors]
    predictions = list(predictor.predict_many(images, probabilities=True))
    best = max(range(len(images)), key=lambda k: predictions[k].probabilities[32, 24].max())
    assert predictions[best].probabilities[32, 24].max() > 0.6
    return images[best], predictions[best]


def test_from_an_image_to_its_mask(browser, client, plain, tmp_path):
    image, expected = plain
    row, column = 32, 24
    label = int(expected.labels[row, column])
    color = np.array(expected.classes.colors[label])
    with opened(browser, client.url) as page:
        page.locator("#facts", has_text="discs tells apart background, disc").wait_for()
        give(page, ("cells.png", encoded(image)))
        assert page.text_content("#name") == "cells.png"
        assert page.text_content("#about") == "96 × 64 pixels, discs"
        boxes = page.locator("#legend input")
        assert [boxes.nth(k).is_checked() for k in range(2)] == [False, True]

        where = (column + 0.5) / 96, 0.504  # within the pixel, not where it meets another
        if not boxes.nth(label).is_checked():
            boxes.nth(label).check()
        assert near(color_at(page, *where), 0.45 * image[row, column] + 0.55 * color)
        boxes.nth(label).uncheck()
        assert near(color_at(page, *where), image[row, column])
        page.keyboard.press("Escape")
        page.locator("#canvas").focus()
        page.keyboard.press(str(label + 1))
        assert boxes.nth(label).is_checked()
        for _ in range(3):
            page.keyboard.press("]")
        assert page.text_content("#opacity-text") == "70 %"
        assert near(color_at(page, *where), 0.3 * image[row, column] + 0.7 * color)

        page.keyboard.press("h")
        assert page.locator("#views input[value=heat]").is_checked()
        heat = color_at(page, *where)
        assert not near(heat, image[row, column])
        page.locator("#legend input").nth(0).check()
        assert color_at(page, *where) != heat
        page.keyboard.press("i")
        assert near(color_at(page, *where), image[row, column])
        page.locator("#views label", has_text="Classes").click()

        box = page.locator("#canvas").bounding_box()
        page.mouse.click(box["x"] + box["width"] * where[0], box["y"] + box["height"] * where[1])
        told = page.text_content("#pixel-title")
        assert told.startswith("Pixel: row ")
        at = tuple(int(part.split()[-1]) for part in told.removeprefix("Pixel: ").split(","))
        rows = page.locator("#pixel tr")
        found = {
            rows.nth(k).locator("th").text_content(): rows.nth(k).locator("td").last.text_content()
            for k in range(2)
        }
        for k, name in enumerate(expected.classes.names):
            share = round(float(expected.probabilities[at][k]) * 255) / 2.55
            assert float(found[name].rstrip(" %").lstrip("< ")) == pytest.approx(share, abs=0.6)
        page.keyboard.press("Shift+ArrowDown")
        assert f"row {at[0] + 1}, column {at[1]}" in page.text_content("#pixel-title")
        assert f"Row {at[0] + 1}" in page.text_content("#news")

        def download(kind):
            with page.expect_download() as waiting:
                page.locator(f"#downloads [data-file={kind}]").click()
            waiting.value.save_as(tmp_path / waiting.value.suggested_filename)
            return tmp_path / waiting.value.suggested_filename

        mask = download("mask")
        assert mask.name == "cells-mask.png"
        assert np.array_equal(read_mask(mask).values, expected.labels)
        assert json.loads(download("outlines").read_text()) == json.loads(json.dumps(expected.to_geojson()))
        page.locator("#legend input").nth(0).uncheck()
        page.locator("#legend input").nth(1).check()
        painted = read_image(download("overlay"))[..., :3].astype(int)
        ours = overlay(image, expected.labels, expected.classes, opacity=0.7).astype(int)
        assert painted.shape == ours.shape
        assert (abs(painted - ours).max(2) <= 3).mean() > 0.9  # their outlines differ in width


def test_zooming_comes_down_to_the_pixel_and_back(browser, client):
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    with opened(browser, client.url) as page:
        give(page, ("noise.png", encoded(image)))
        fitted = page.text_content("#scale")
        page.keyboard.press("i")
        page.locator("#canvas").focus()
        for _ in range(12):
            page.keyboard.press("+")
        color_at(page, 0.5, 0.5)
        assert page.text_content("#scale") == "6400 %"
        page.keyboard.press("Shift+ArrowRight")
        row, column = (int(part.split()[-1]) for part in page.text_content("#pixel-title")[7:].split(","))
        box = page.locator("#canvas").bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2 + 20, box["y"] + box["height"] / 2 + 20)
        row, column = (int(part.split()[-1]) for part in page.text_content("#pixel-title")[7:].split(","))
        # Three pixels further: the mark of the pixel is not there.
        beside = color_at(page, 0.5 + (20 + 3 * 64) / box["width"], 0.5 + 20 / box["height"])
        assert beside == image[row, column + 3].tolist()
        page.keyboard.press("x")
        color_at(page, 0.5, 0.5)
        assert page.text_content("#scale") == "100 %"
        page.keyboard.press("0")
        color_at(page, 0.5, 0.5)
        assert page.text_content("#scale") == fitted


def test_images_are_dropped_and_pasted_several_at_a_time(browser, client, png):
    with opened(browser, client.url) as page:
        for kind, target in (("drop", "DragEvent"), ("paste", "ClipboardEvent")):
            page.evaluate(
                """([kind, target, bytes]) => {
                    const data = new DataTransfer();
                    const content = new Uint8Array(bytes);
                    for (const name of ["a", "b"]) data.items.add(new File([content], `${kind}-${name}.png`));
                    const given = { [kind === "drop" ? "dataTransfer" : "clipboardData"]: data };
                    document.dispatchEvent(new window[target](kind, { ...given, cancelable: true }));
                }""",
                [kind, target, list(png)],
            )
        page.wait_for_selector("#strip li:nth-child(4) button.ready")
        assert page.locator("#strip button.ready").count() == 4
        assert page.text_content("#name") == "drop-a.png"
        page.keyboard.press("n")
        assert page.text_content("#name") == "drop-b.png"
        page.locator("#strip button").nth(3).click()
        assert page.text_content("#name") == "paste-b.png"


def test_what_cannot_be_predicted_is_explained_and_the_rest_goes_on(browser, client, png):
    with opened(browser, client.url, complains=True) as page:  # the browser reports every status from 400 on
        give(page, ("broken.png", png[:60]), ("good.png", png))
        page.wait_for_selector("#strip li:nth-child(2) button.ready")
        page.locator("#strip button").nth(0).click()
        assert page.is_visible("#failed")
        assert page.get_attribute("#failed", "role") == "alert"
        assert "damaged" in page.text_content("#failed-title")
        assert page.text_content("#failed-fix").startswith("To fix: ")
        assert page.is_disabled("#downloads button >> nth=0")


def test_names_are_text_and_never_code(browser, tmp_path, png):
    save(UNet(("back", HOSTILE), widths=(2, 4)), tmp_path / "m.safetensors")
    server = Server([tmp_path / "m.safetensors"], port=0, engine="torch")
    with server.background() as url, opened(browser, url) as page:
        give(page, (f"{HOSTILE}.png", png))
        assert HOSTILE in page.text_content("#legend")
        assert HOSTILE in page.text_content("#name")
        assert page.title() == "fullyconv"
        assert page.locator("img[onerror]").count() == 0


def test_a_token_is_asked_for_once(browser, model_file, png):
    with Server([model_file], port=0, engine="torch", access=Access(token=SECRET)).background() as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#door[open]")
        page.fill("#token", SECRET)
        page.keyboard.press("Enter")
        give(page, ("a.png", png))
        page.wait_for_selector("#strip button.ready")
        page.reload()
        page.wait_for_selector("#model option", state="attached")
        assert not page.is_visible("#door")
        context.close()


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_phones_and_the_dark(browser, client, png, width, scheme):
    size = {"width": width, "height": 800}
    with opened(browser, client.url, viewport=size, color_scheme=scheme, has_touch=width < 500) as page:
        give(page, ("a-rather-long-name-" * 6 + ".png", png))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        paint = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, paint.strip("rgb()").split(","))) / 3
        assert (brightness < 60) == (scheme == "dark")
        for name in ("#zoom button", "#downloads button", "#choose"):
            box = page.locator(name).first.bounding_box()
            assert box["height"] >= 30
        assert page.locator("button, input:not([hidden]), select, canvas[tabindex]").evaluate_all(
            """(all) => all.every((each) => each.textContent.trim() || each.ariaLabel || each.labels?.length
                || each.getAttribute("aria-label"))"""
        )


def test_a_client_without_scripts_sees_what_it_is(client):
    page = client.ask("/").body.decode()
    assert "<h1>" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
