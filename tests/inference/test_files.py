"""Files to files: what is written, and that a command goes on where it was stopped."""

import errno
import json
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from pictures import blocks

from fullyconv.errors import ConfigError, MachineError
from fullyconv.images import open_image, overlay, read_image, read_mask, write_image
from fullyconv.inference import Outputs, Predictor, Shares, files, predict, predict_files, store
from fullyconv.inference import measured as measured_module
from fullyconv.inference.job import plan_job
from fullyconv.inference.ledger import FOLDER, Ledger
from fullyconv.inference.outputs import _row_of_chunks, small_overlay
from fullyconv.inference.runners import Runners
from fullyconv.inference.store import Store
from fullyconv.models import Normalization, UNet, save
from fullyconv.outlines import decode_rle
from fullyconv.progress import Quiet

OPTIONS = {"engine": "torch", "precision": "f32"}
EVERYTHING = Outputs(shares=Shares((2, 0), "uint8"), polygons=True, objects=True)
MASKS = Outputs(overlays=False)


def run(model, images, out, outputs=MASKS, **options):
    return predict_files(model, images, out, outputs, progress=Quiet(), **{**OPTIONS, **options})


def digest(folder):
    """Every file under a folder, by name and content."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two small images, and one of several tiles and chunks."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in {"a.png": (60, 170), "b.png": (90, 33), "large.tif": (500, 700)}.items():
        write_image(folder / name, blocks(*size))
    return sorted(folder.iterdir())


@pytest.fixture
def large_is_small(monkeypatch):
    """Jobs of tiles on disk from a third of a megapixel on, in chunks of 128."""
    monkeypatch.setattr(files, "LARGE", 300_000)
    monkeypatch.setattr("fullyconv.inference.job.CHUNKS", (128,))


def test_jobs_write_what_is_written_from_memory(small_unet_file, pictures, tmp_path, monkeypatch):
    run(small_unet_file, pictures, tmp_path / "memory", EVERYTHING, tile=None)
    monkeypatch.setattr(files, "LARGE", 300_000)
    monkeypatch.setattr("fullyconv.inference.job.CHUNKS", (128,))
    written = run(small_unet_file, pictures, tmp_path / "jobs", EVERYTHING, tile=256)
    assert sorted(written.files) == ["a", "b", "large"]
    assert digest(tmp_path / "jobs") == digest(tmp_path / "memory")
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == [
        "masks", "objects", "overlays", "polygons", "probabilities",
    ]  # fmt: skip


def test_every_output_is_of_the_prediction(small_unet, small_unet_file, pictures, tmp_path):
    paths = run(small_unet_file, pictures[:1], tmp_path / "out", EVERYTHING).files["a"]
    prediction = predict(small_unet, pictures[0], **OPTIONS, probabilities=True)
    assert np.array_equal(read_mask(paths["masks"]).values, prediction.labels)
    kept = np.rint(prediction.probabilities[..., [2, 0]] * 255).astype(np.uint8)
    with open_image(paths["probabilities"]) as source:
        assert np.array_equal(source.read(), kept)
    assert json.loads(paths["polygons"].read_text())["features"] == prediction.to_geojson()["features"]
    coco = json.loads(paths["objects"].read_text())
    painted = np.zeros_like(prediction.labels)
    for found in coco["annotations"]:
        mask = decode_rle(found["segmentation"]).astype(bool)
        assert found["area"] == mask.sum()
        x, y, width, height = found["bbox"]
        assert mask[y : y + height, x : x + width].sum() == found["area"]
        painted[mask] = found["category_id"]
    assert np.array_equal(painted, prediction.labels)
    assert np.array_equal(read_image(paths["overlays"]), prediction.overlay())


@pytest.mark.parametrize(("form", "suffix"), [("png", ".png"), ("tiff", ".tif"), ("zarr", ".zarr")])
def test_forms_hold_the_same_labels(form, suffix, small_unet_file, pictures, tmp_path):
    paths = run(small_unet_file, pictures[:1], tmp_path, Outputs(form, overlays=False)).files["a"]
    assert paths["masks"].name == f"a{suffix}"
    expected = run(small_unet_file, pictures[:1], tmp_path / "png", MASKS).files["a"]["masks"]
    values = read_mask(expected).values
    if form == "zarr":
        with open_image(paths["masks"]) as source:
            assert np.array_equal(source.read()[..., 0], values)
    else:
        assert np.array_equal(read_mask(paths["masks"]).values, values)


def test_a_place_on_the_ground_is_kept(small_unet_file, tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="an extra: geo")
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_200_000)
    image = blocks(60, 80)
    with rasterio.open(
        tmp_path / "field.tif", "w", driver="GTiff", height=60, width=80, count=3, dtype="uint8",
        crs="EPSG:32633", transform=transform, photometric="RGB",
    ) as file:  # fmt: skip
        file.write(image.transpose(2, 0, 1))
    outputs = Outputs(overlays=False, polygons=True)
    paths = run(small_unet_file, [tmp_path / "field.tif"], tmp_path / "out", outputs).files["field"]
    with rasterio.open(paths["masks"]) as file:
        assert file.crs.to_epsg() == 32633
        assert file.transform == transform
    corner = json.loads(paths["polygons"].read_text())["features"][0]["geometry"]["coordinates"][0][0]
    assert 500_000 <= corner[0] <= 500_040
    assert all(paths[kind].with_suffix(".qml").exists() for kind in ("masks", "polygons"))
    write_image(tmp_path / "plain.png", image)
    with pytest.raises(ConfigError, match="georeference"):
        run(small_unet_file, [tmp_path / "plain.png"], tmp_path / "other", Outputs("geotiff"))


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("float32", float("nan")), ("int16", -9999)])
def test_pixels_without_data_get_no_class(dtype, nodata, tmp_path, large_is_small, monkeypatch):
    """In files of small images and of jobs alike; what only some bands lack was measured."""
    rasterio = pytest.importorskip("rasterio", reason="an extra: geo")
    monkeypatch.setattr(measured_module, "_PART", 100)
    torch.manual_seed(0)
    network = UNet(3, widths=(4, 8), normalization=Normalization((100.0,) * 3, (50.0,) * 3, dtype))
    save(network, tmp_path / "model.safetensors")
    for name, size in {"small": (60, 170), "large": (500, 700)}.items():
        image = blocks(*size).clip(1).astype(dtype)
        empty = np.zeros(size, bool)
        empty[:, :7] = empty[40:50, 20:160] = True
        image[empty] = nodata
        image[20:30, 20:30, 1] = nodata  # one band
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", height=size[0], width=size[1], count=3,
            dtype=dtype, crs="EPSG:32633", transform=rasterio.Affine(1, 0, 7, 0, -1, 9), nodata=nodata,
        ) as file:  # fmt: skip
            file.write(image.transpose(2, 0, 1))
        outputs = Outputs(polygons=True, objects=True)
        with np.errstate(invalid="ignore"):  # an overlay of pixels that are no numbers
            written = run(
                tmp_path / "model.safetensors", [tmp_path / f"{name}.tif"], tmp_path / name, outputs, tile=256
            )
        paths = written.files[name]
        labels = read_mask(paths["masks"]).values
        assert np.array_equal(labels == 255, empty)
        if not np.isnan(nodata):  # which spread from pixel to pixel
            expected = predict(network, image, **OPTIONS).labels
            assert np.array_equal(labels[~empty], expected[~empty])
        outlined = json.loads(paths["polygons"].read_text())["features"]
        assert {each["properties"]["classification"]["name"] for each in outlined} <= {"class 1", "class 2"}
        areas = [each["area"] for each in json.loads(paths["objects"].read_text())["annotations"]]
        assert sum(areas) == ((labels > 0) & (labels < 3)).sum()


def test_wide_answers_on_disk_are_read_part_by_part(monkeypatch):
    monkeypatch.setattr("fullyconv.inference.outputs._PART", 40)
    labels = np.arange(600 * 90, dtype=np.uint16).reshape(600, 90)
    widths = []

    class OnDisk:
        shape, dtype = labels.shape, labels.dtype

        def __getitem__(self, key):
            widths.append(labels[key].shape[1])
            return labels[key]

    assert np.array_equal(_row_of_chunks(OnDisk(), 512), labels[512:])
    assert widths == [40, 40, 10]
    assert np.shares_memory(_row_of_chunks(labels, 0), labels)


def test_what_computed_is_let_go_of_before_a_large_image_is_written(
    small_unet_file, tmp_path, monkeypatch, large_is_small
):
    write_image(tmp_path / "a.tif", blocks(600, 580))
    order = []
    monkeypatch.setattr(Store, "mark", lambda *_: order.append("computed"))
    monkeypatch.setattr(Runners, "close", lambda _: order.append("closed"))
    monkeypatch.setattr(Outputs, "write_stored", lambda *_: order.append("written"))
    run(small_unet_file, [tmp_path / "a.tif"], tmp_path / "out", MASKS, tile=256)
    assert order[-3:] == ["computed", "closed", "written"]


@pytest.mark.parametrize(("most", "step"), [(10**6, 1), (50_000, 3), (7000, 8)])
def test_a_large_overlay_shows_every_nth_pixel(small_unet, tmp_path, monkeypatch, most, step):
    monkeypatch.setattr("fullyconv.inference.outputs._OVERLAY_PIXELS", most)
    monkeypatch.setattr("fullyconv.inference.outputs._CHUNK", 64)
    image = blocks(503, 707)
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(112, 144), photometric="rgb")
    labels = predict(small_unet, image, **OPTIONS).labels
    with open_image(tmp_path / "a.tif") as source:
        shown = small_overlay(source, labels, small_unet.classes)
    expected = overlay(image[::step, ::step], labels[::step, ::step], small_unet.classes)
    assert np.array_equal(shown, expected)


# --- going on -----------------------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from fullyconv.inference import Outputs, files, job, predict_files
from fullyconv.progress import Lines
files.LARGE, job.CHUNKS = 300_000, (128,)
model, out, *images = map(Path, sys.argv[1:])
options = {"engine": "torch", "precision": "f32", "tile": 200, "progress": Lines()}
predict_files(model, images, out, Outputs(overlays=False), **options)
"""


def start(model, out, images):
    command = [sys.executable, "-c", PROGRAM, str(model), str(out), *map(str, images)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_chunks_are_as_small_as_the_tile_asked_for(small_unet_file, tmp_path):
    write_image(tmp_path / "large.tif", blocks(700, 900))
    predictor = Predictor(small_unet_file, tile=200, **OPTIONS)
    with open_image(tmp_path / "large.tif") as source:
        chunk, plan = plan_job(source, predictor, False)
        assert chunk == 128
        assert max(plan.tile_size) <= 200
        with pytest.raises(ConfigError, match="use --tile 144 or more"):
            plan_job(source, Predictor(small_unet_file, tile=100, **OPTIONS), False)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_result(small_unet_file, tmp_path, large_is_small):
    write_image(tmp_path / "small.png", blocks(50, 40))
    write_image(tmp_path / "large.tif", blocks(900, 1000))
    images = [tmp_path / "small.png", tmp_path / "large.tif"]
    run(small_unet_file, images, tmp_path / "whole", tile=200)
    out = tmp_path / "killed"
    done = out / FOLDER / "large" / "done"
    rng = np.random.default_rng()  # another moment every time
    for least in (1, 20):
        wanted = int(rng.integers(least, least + 15))
        with start(small_unet_file, out, images) as process:
            while process.poll() is None and not (done.exists() and sum(done.read_bytes()) >= wanted):
                time.sleep(0.001)
            time.sleep(float(rng.uniform(0, 0.02)))
            process.kill()
            process.communicate()
            assert process.returncode != 0, "the command was over before it could be killed"
    before = sum(done.read_bytes())
    run(small_unet_file, images, out, tile=200)
    assert before >= 20
    assert digest(out) == digest(tmp_path / "whole")


class StoppedError(Exception):
    pass


@pytest.fixture
def stopped(small_unet_file, tmp_path, large_is_small, monkeypatch):
    """What a command that was stopped after five tiles leaves behind, and its arguments."""
    image, out, mark = tmp_path / "large.tif", tmp_path / "out", Store.mark
    write_image(image, blocks(500, 700))

    def mark_some(store, piece):
        if piece == 5:
            raise StoppedError
        mark(store, piece)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "mark", mark_some)
        with pytest.raises(StoppedError):
            run(small_unet_file, [image], out, tile=200)
    return small_unet_file, image, out


def test_what_is_done_is_not_computed_again(stopped, monkeypatch):
    model, image, out = stopped
    marked, mark = [], Store.mark
    monkeypatch.setattr(Store, "mark", lambda store, piece: (marked.append(piece), mark(store, piece)))
    run(model, [image], out, tile=200)
    going_on = marked.copy()
    marked.clear()
    run(model, [image], out.with_name("anew"), tile=200)
    assert marked == list(range(len(marked)))
    assert not set(going_on) & set(range(5))
    assert len(going_on) >= len(marked) - 7  # two more may have been on their way when the sixth failed
    assert digest(out) == digest(out.with_name("anew"))


def test_a_changed_image_is_refused_until_restart(stopped):
    model, image, out = stopped
    tifffile.imwrite(image, blocks(500, 700, seed=1))
    with pytest.raises(ConfigError, match=r"changed.*--restart"):
        run(model, [image], out, tile=200)
    run(model, [image], out, tile=200, restart=True)
    anew = run(model, [image], out.with_name("anew"), tile=200)
    assert digest(out) == digest(out.with_name("anew"))
    assert not anew.problems


def test_another_model_or_option_is_refused_and_named(stopped, tmp_path):
    model, image, out = stopped
    save(UNet(3, widths=(4, 4)), tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"another model.*--restart"):
        run(tmp_path / "other.safetensors", [image], out, tile=200)
    with pytest.raises(ConfigError, match="another options"):
        run(model, [image], out, tile=300)
    with pytest.raises(ConfigError, match="another outputs"):
        run(model, [image], out, Outputs(), tile=200)


def test_two_processes_are_refused(stopped):
    model, image, out = stopped
    command = json.loads((out / FOLDER / "command.json").read_text())
    held = Ledger(out, command["facts"], command["names"])
    with pytest.raises(ConfigError, match="another process"):
        run(model, [image], out, tile=200)
    held.close(finished=False)
    run(model, [image], out, tile=200)


def test_a_full_disk_is_the_machine_s_and_what_is_done_is_kept(
    small_unet_file, tmp_path, large_is_small, monkeypatch
):
    write_image(tmp_path / "large.tif", blocks(500, 700))
    flushed, flush = [], store._sync

    def full(path):
        flushed.append(path)
        if len(flushed) > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_sync", full)
        with pytest.raises(MachineError, match="goes on") as caught:
            run(small_unet_file, [tmp_path / "large.tif"], tmp_path / "out", tile=200)
    assert caught.value.exit_code == 3
    done = (tmp_path / "out" / FOLDER / "large" / "done").read_bytes()
    assert 0 < sum(done) < len(done)
    run(small_unet_file, [tmp_path / "large.tif"], tmp_path / "out", tile=200)
    assert not (tmp_path / "out" / FOLDER).exists()


@pytest.fixture
def one_of_two(small_unet_file, pictures, tmp_path, monkeypatch):
    """What a command that was stopped after the first of two images leaves behind, and its images."""
    written, write = [], Outputs.write

    def write_one(outputs, out, source, prediction):
        if written:
            raise StoppedError
        written.append(source.path.name)
        write(outputs, out, source, prediction)

    images = [Path(shutil.copy(path, tmp_path)) for path in pictures[:2]]
    with monkeypatch.context() as patch:
        patch.setattr(Outputs, "write", write_one)
        with pytest.raises(StoppedError):
            run(small_unet_file, images, tmp_path / "out")
    return images, tmp_path / "out"


def test_small_images_that_are_done_are_not_computed_again(small_unet_file, one_of_two):
    images, out = one_of_two
    first = (out / "masks" / "a.png").stat().st_mtime_ns
    assert sorted(run(small_unet_file, images, out).files) == ["a", "b"]
    assert (out / "masks" / "a.png").stat().st_mtime_ns == first
    assert digest(out).keys() == {"masks/a.png", "masks/b.png"}


def test_a_small_image_that_changed_after_it_was_done_is_refused(small_unet_file, one_of_two):
    images, out = one_of_two
    write_image(images[0], blocks(30, 30, seed=1), overwrite=True)
    with pytest.raises(ConfigError, match=r"image a: it was predicted.*--restart"):
        run(small_unet_file, images, out)
    assert sorted(run(small_unet_file, images, out, restart=True).files) == ["a", "b"]
    assert read_mask(out / "masks" / "a.png").values.shape == (30, 30)


# --- many images --------------------------------------------------------------------------------------


def test_damaged_images_are_named_and_the_others_written(small_unet_file, pictures, tmp_path):
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:200])
    (tmp_path / "text.png").write_text("no image")
    write_image(tmp_path / "deep.png", np.zeros((5, 5, 3), np.uint16))
    bad = sorted(tmp_path.glob("*.png"))
    written = run(small_unet_file, [bad[0], pictures[0], *bad[1:], pictures[1]], tmp_path / "out")
    assert sorted(written.files) == ["a", "b"]
    assert sorted(line.partition(".png")[0].rpartition("/")[2] for line in written.problems) == [
        "cut", "deep", "text",
    ]  # fmt: skip
    assert not (tmp_path / "out" / FOLDER).exists()


def test_an_unreadable_tile_is_that_image_s_problem(small_unet_file, pictures, tmp_path, large_is_small):
    data = (tmp_path / "l.tif", pictures[2].read_bytes())
    data[0].write_bytes(data[1][: len(data[1]) // 2] + b"\0" * (len(data[1]) // 2))
    shutil.copy(pictures[0], tmp_path)
    written = run(small_unet_file, [data[0], tmp_path / "a.png"], tmp_path / "out")
    assert list(written.files) == ["a"]
    assert "l.tif" in written.problems[0]


def test_existing_outputs_are_refused_before_anything_is_computed(small_unet_file, pictures, tmp_path):
    run(small_unet_file, pictures[:1], tmp_path / "out")
    with pytest.raises(ConfigError, match="--overwrite"):
        run(small_unet_file, pictures, tmp_path / "out")
    run(small_unet_file, pictures, tmp_path / "out", overwrite=True)


def test_one_name_twice_is_refused(small_unet_file, pictures, tmp_path):
    shutil.copy(pictures[0], tmp_path)
    with pytest.raises(ConfigError, match="named a"):
        run(small_unet_file, [pictures[0], tmp_path / "a.png"], tmp_path / "out")
