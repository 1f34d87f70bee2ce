"""What the server answers is what the library says."""

import io
import json
import threading
import zipfile

import numpy as np
import PIL.Image
import pytest
from clients import Client, disc, encoded, eventually

from fullyconv.images import overlay, read_image, read_mask, write_image
from fullyconv.inference import Predictor
from fullyconv.models import Normalization, UNet, save
from fullyconv.outlines import decode_rle, to_geojson
from fullyconv.server import Server


@pytest.fixture(scope="module")
def expected(network):
    return Predictor(network, engine="torch", precision="f32").predict(disc(), probabilities=True)


def arrays(reply):
    return np.load(io.BytesIO(reply.body), allow_pickle=False)


def picture(body, tmp_path):
    (tmp_path / "got.png").write_bytes(body)
    return read_image(tmp_path / "got.png")


def test_a_mask_is_the_library_s_own(client, png, expected, tmp_path):
    reply = client.predict(png)
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    (tmp_path / "mask.png").write_bytes(reply.body)
    mask = read_mask(tmp_path / "mask.png")
    assert np.array_equal(mask.values, expected.labels)
    assert mask.palette[1] == expected.classes.colors[1]


def test_json_has_run_lengths_and_outlines(client, png, expected):
    result = client.predict(png, "?output=json&shapes=rle&shapes=geojson").json
    assert (result["model"], result["height"], result["width"], result["exact"]) == ("discs", 60, 80, True)
    for index, facts in enumerate(result["classes"]):
        inside = expected.labels == index
        assert (facts["index"], facts["pixels"]) == (index, inside.sum())
        assert facts["fraction"] == pytest.approx(inside.mean())
        assert np.array_equal(decode_rle(facts["rle"]), inside)
    assert result["geojson"] == json.loads(json.dumps(to_geojson(expected.labels, expected.classes)))
    assert "geojson" not in client.predict(png, "?output=json").json


def test_geojson_is_a_file_for_other_programs(client, png, expected):
    reply = client.predict(png, "?output=geojson")
    assert reply.headers["content-type"] == "application/geo+json"
    assert reply.headers["content-disposition"] == 'attachment; filename="outlines.geojson"'
    assert reply.json == json.loads(json.dumps(to_geojson(expected.labels, expected.classes)))


def test_arrays_are_numpy_s(client, png, expected):
    assert np.array_equal(arrays(client.predict(png, "?output=labels")), expected.labels)
    halves = arrays(client.predict(png, "?output=probabilities"))
    assert halves.dtype == np.float16
    np.testing.assert_allclose(halves, expected.probabilities, atol=1e-3)
    bytes_ = arrays(client.predict(png, "?output=probabilities&dtype=uint8"))
    assert np.array_equal(bytes_, np.rint(expected.probabilities * 255).astype(np.uint8))


def test_pictures_are_painted_as_elsewhere(client, png, expected, tmp_path):
    painted = picture(client.predict(png, "?output=overlay&opacity=0.2").body, tmp_path)
    assert np.array_equal(painted, overlay(disc(), expected.labels, expected.classes, opacity=0.2))
    assert np.array_equal(picture(client.predict(png, "?output=image").body, tmp_path), disc())


def test_several_outputs_come_as_one_file(client, png):
    reply = client.predict(png, "?output=mask&output=labels&output=json&output=mask")
    assert reply.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["mask.png", "labels.npy", "result.json"]
        assert archive.read("mask.png") == client.predict(png).body


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "image/png"),
        ("application/json", "application/json"),
        ("application/geo+json", "application/geo+json"),
        ("text/html, application/json;q=0.9, */*;q=0.1", "application/json"),
        ("image/png;q=0, application/*", "application/json"),
        ("image/*", "image/png"),
    ],
)
def test_the_accept_header_chooses(client, png, accept, kind):
    assert client.predict(png, Accept=accept).headers["content-type"] == kind


def test_an_accept_header_that_nothing_fits_is_refused(client, png):
    reply = client.predict(png, Accept="audio/ogg")
    assert reply.status == 406
    assert "image/png" in reply.problem["expected"]
    assert client.predict(png, "?output=mask", Accept="audio/ogg").status == 200


@pytest.mark.parametrize("kind", ["", "application/octet-stream", "image/x-whatever"])
def test_content_decides_what_an_image_is(client, png, kind):
    assert client.predict(png, Content_Type=kind).status == 200


@pytest.mark.parametrize("form", ["JPEG", "BMP", "WEBP", "TIFF", "GIF"])
def test_formats(client, form):
    body = encoded(disc(), form)
    assert client.predict(body, "?output=json", Content_Type=f"image/{form.lower()}").json["width"] == 80


def test_a_form_may_carry_the_image(client, png):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + png + b"\r\n--x--\r\n"
    )
    reply = client.predict(body, Content_Type="multipart/form-data; boundary=x")
    assert (reply.status, reply.body) == (200, client.predict(png).body)


def test_an_image_in_tiles_is_the_image_as_a_whole(serving, network):
    image = disc(300, 420, seed=3)
    whole = Predictor(network, engine="torch", precision="f32", tile=None).predict(image)
    with serving(tile=96) as client:
        reply = client.predict(encoded(image), "?output=labels&output=json")
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert np.array_equal(np.load(io.BytesIO(archive.read("labels.npy"))), whole.labels)
        assert json.loads(archive.read("result.json"))["exact"] is True


def test_a_tiled_tiff_is_read_in_bands(client, network, tmp_path):
    import tifffile

    image = disc(200, 3000, seed=1)
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(16, 64), compression="zlib", photometric="rgb")
    reply = client.predict((tmp_path / "a.tif").read_bytes(), "?output=labels", Content_Type="image/tiff")
    expected = Predictor(network, engine="torch", precision="f32").predict(image)
    assert np.array_equal(arrays(reply), expected.labels)


def test_outlines_lie_where_the_image_lies(client, tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="an extra: geo")
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=60, width=80, count=3, dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(2, 0, 400000, 0, -2, 5000000),
    ) as file:  # fmt: skip
        file.write(np.moveaxis(disc(), 2, 0))
    reply = client.predict((tmp_path / "a.tif").read_bytes(), "?output=geojson", Content_Type="image/tiff")
    points = np.array(reply.json["features"][0]["geometry"]["coordinates"][0])
    assert ((points >= (400000, 5000000 - 120)) & (points <= (400160, 5000000))).all()
    assert "UTM zone 33N" in reply.json["crs"]["properties"]["name"]


def test_images_that_do_not_fit_the_network_are_the_client_s_to_mend(client, tmp_path):
    write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint16))
    problem = client.predict((tmp_path / "a.png").read_bytes()).problem
    assert (problem["status"], problem["given"]) == (422, "the image holds uint16 values")


def test_a_picture_of_16_bits_is_made_visible(serving, tmp_path):
    save(
        UNet(2, 1, widths=(2, 4), normalization=Normalization(dtype="uint16")), tmp_path / "deep.safetensors"
    )
    with Server([tmp_path / "deep.safetensors"], port=0, engine="torch").background() as url:
        values = np.linspace(1000, 5000, 64 * 64).reshape(64, 64).astype(np.uint16)
        reply = Client(url).predict(encoded(values), "?output=image")
    shown = np.asarray(PIL.Image.open(io.BytesIO(reply.body)))
    assert (shown.dtype, shown.shape, shown.min(), shown.max()) == (np.uint8, (64, 64, 3), 0, 255)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?output=video", "output"),
        ("?model=other", "model"),
        ("?opacity=2", "opacity"),
        ("?opacity=nan", "opacity"),
        ("?dtype=float64", "dtype"),
        ("?ouput=mask", "ouput"),
        ("?url=http://example.org/a.png", "url"),
        ("?path=/etc/passwd", "path"),
    ],
)
def test_what_cannot_be_asked_is_named(client, png, query, named):
    problem = client.predict(png, query).problem
    assert problem["status"] == 422
    assert f"query.{named}" in problem["detail"]


def test_a_named_request_can_be_followed(serving, network):
    """The tiles that are done are counted, and nothing is known of what is over."""
    with serving(tile=96) as client:
        predictor = client.service._workers[0]._predictors["discs"]
        seen, go = threading.Event(), threading.Event()
        run = predictor._progress.advance

        def advance(task, done, total, note=""):
            run(task, done, total, note)
            seen.set()
            assert go.wait(30)

        predictor._progress.advance = advance
        replies = []
        body = encoded(disc(300, 300))
        asking = threading.Thread(target=lambda: replies.append(client.predict(body, X_Request_ID="mine")))
        asking.start()
        assert seen.wait(30)
        far = client.ask("/v1/progress/mine").json
        again = client.predict(body, X_Request_ID="mine")
        go.set()
        asking.join()
        assert (far["state"], far["done"]) == ("predicting", 1)
        assert far["total"] > 1
        assert again.status == 409
        assert again.problem["given"] == "a second request mine"
        assert (replies[0].status, replies[0].headers["x-request-id"]) == (200, "mine")
        eventually(lambda: client.ask("/v1/progress/mine").json["state"] == "unknown")
