"""Laws of the crop sampler: a pure function of the seed and the crop's number, fair, in any worker."""

import os
import pickle
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from fullyconv.datasets import AugmentConfig, CropSampler, decoded_bytes, open_dataset
from fullyconv.datasets import _sampling as sampling_module
from fullyconv.errors import ConfigError, DataError

CONFIG = AugmentConfig(crop=(6, 7))


@pytest.fixture
def dataset(folder):
    return open_dataset(folder.pairs(*"abcdef", size=(12, 14)).root)


def sampler_of(dataset, **options):
    return CropSampler(dataset, dataset.samples, CONFIG, **{"seed": 5, "length": 12, **options})


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_crop_depends_on_the_seed_and_its_number_alone(dataset):
    sampler, other = sampler_of(dataset), sampler_of(dataset)
    forward = [sampler[k] for k in range(24)]
    for k in reversed(range(24)):
        assert equal(other[k], forward[k])
    assert not any(equal(forward[k], forward[k + 12]) for k in range(12))
    reseeded = sampler_of(dataset, seed=6)
    assert not any(equal(reseeded[k], forward[k]) for k in range(12))
    assert not equal(forward[0], forward[1])


def test_the_sample_of_a_crop_is_known_beforehand(dataset):
    sampler = sampler_of(dataset)
    assert [sampler.sample_of(k).name for k in range(12, 24)] == [
        sampler.samples[position].name for position in sampler.schedule(1)
    ]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_draw_the_same_crops_through_all_epochs(dataset, start):
    sampler = sampler_of(dataset)
    loader = DataLoader(
        sampler, sampler=range(24), batch_size=4, num_workers=2, multiprocessing_context=start
    )
    images, labels = zip(*loader, strict=True)
    expected = [sampler[k] for k in range(24)]
    assert equal((torch.cat(images), torch.cat(labels)), map(torch.stack, zip(*expected, strict=True)))


def test_every_sample_is_drawn_about_equally_often(dataset):
    sampler = sampler_of(dataset, length=20)
    for epoch in range(20):
        counts = np.bincount(sampler.schedule(epoch), minlength=6)
        assert counts.sum() == 20
        assert counts.min() >= 3
        assert counts.max() <= 4


def test_fewer_crops_than_samples_still_reach_each_over_the_epochs(dataset):
    sampler = sampler_of(dataset, length=2)
    drawn = np.concatenate([sampler.schedule(epoch) for epoch in range(30)])
    assert np.bincount(drawn, minlength=6).min() >= 9


def test_large_images_get_more_crops_and_small_ones_are_not_starved(folder):
    folder.pairs("a", "b", "c", size=(10, 10))
    big = np.zeros((100, 100), np.uint8)
    folder.save("images/z.png", big)
    folder.save("masks/z.png", big)
    sampler = sampler_of(open_dataset(folder.root), length=130)
    shares = np.bincount(sampler.schedule(0), minlength=4) / 130
    # Half of the crops evenly (1/8 each), half by the square root of the area (1, 1, 1 and 10 of 13).
    assert shares == pytest.approx([0.125 + 0.5 / 13] * 3 + [0.125 + 5 / 13], abs=1 / 130)


def test_the_default_length_covers_the_pixels_once_and_every_sample(dataset):
    assert CropSampler(dataset, dataset.samples, CONFIG, seed=0).length == 6 * 12 * 14 // (6 * 7)
    large = AugmentConfig(crop=(256, 256))
    assert CropSampler(dataset, dataset.samples, large, seed=0).length == 6


def count_loads(dataset, monkeypatch):
    count = []
    load = type(dataset).load
    monkeypatch.setattr(type(dataset), "load", lambda self, sample: count.append(1) or load(self, sample))
    return count


ROOM = 2 * 192  # bytes: image and labels of a sample, each rounded up to 64


@pytest.mark.parametrize(("kept", "reads"), [(0, 24), (6, 6), (3, None)])
@pytest.mark.parametrize("on_disk", [False, True])
def test_the_cache_changes_speed_only_and_stays_within_its_limit(
    dataset, monkeypatch, tmp_path, kept, reads, on_disk
):
    without = sampler_of(dataset, cache_bytes=0)
    expected = [without[k] for k in range(12)]
    count = count_loads(dataset, monkeypatch)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    sampler = sampler_of(dataset, cache_bytes=kept * ROOM, cache_folder=scratch if on_disk else None)
    for _ in range(2):
        assert all(equal(sampler[k], expected[k]) for k in range(12))
    assert len(count) == reads or (reads is None and 6 < len(count) < 24)
    assert not list(scratch.iterdir())  # a file without a name is gone with its process


@pytest.mark.parametrize("on_disk", [False, True])
def test_forked_workers_share_what_one_of_them_decoded(dataset, monkeypatch, tmp_path, on_disk):
    sampler = sampler_of(dataset, cache_bytes=6 * ROOM, cache_folder=tmp_path if on_disk else None)
    expected = [sampler_of(dataset)[k] for k in range(24)]
    reads = torch.zeros(1, dtype=torch.int64).share_memory_()
    load = type(dataset).load

    def counted(self, sample):
        reads.add_(1)
        return load(self, sample)

    monkeypatch.setattr(type(dataset), "load", counted)
    options = {"batch_size": 4, "multiprocessing_context": "fork"}
    for workers in (1, 2):  # the second ones find what the first one left
        loader = DataLoader(sampler, sampler=range(24), num_workers=workers, **options)
        images = torch.cat([images for images, _ in loader])
        assert torch.equal(images, torch.stack([image for image, _ in expected]))
    assert reads.item() == 6


def test_a_sampler_travels_without_what_it_keeps(dataset, tmp_path):
    sampler = sampler_of(dataset, cache_bytes=6 * ROOM, cache_folder=tmp_path)
    expected = [sampler[k] for k in range(12)]
    text = pickle.dumps(sampler)
    assert len(text) < len(pickle.dumps(sampler_of(dataset, cache_bytes=0))) + 200
    arrived = pickle.loads(text)
    for _ in range(2):
        assert all(equal(arrived[k], expected[k]) for k in range(12))


def test_a_disk_that_is_full_keeps_nothing_and_harms_nothing(dataset, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    count = count_loads(dataset, monkeypatch)
    sampler, plain = sampler_of(dataset, cache_folder=tmp_path), sampler_of(dataset)
    assert all(equal(sampler[k], plain[k]) for k in range(12))
    assert len(count) == 12 + 6
    assert not list(tmp_path.glob("tmp*"))


@pytest.mark.parametrize("on_disk", [False, True])
def test_memory_stays_flat_however_many_images_there_are(folder, on_disk):
    side = 256
    dataset = open_dataset(folder.pairs(*(f"{k:02}" for k in range(24)), size=(side, side)).root)
    sampler = sampler_of(dataset, **({"cache_folder": folder.root} if on_disk else {"cache_bytes": 0}))
    sampler[0]
    tracemalloc.start()
    for k in range(48):
        sampler[k]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    one = 2 * side**2  # an image and its labels; decoders hold a few copies while they work
    assert peak < 8 * one < decoded_bytes(dataset, dataset.samples) / 2


def test_weights_are_made_once_a_sample_and_kept_with_it(dataset):
    made = []

    def weigh(sample, labels):
        made.append(sample.name)
        return labels.astype(np.float32) + 0.5

    sampler, plain = sampler_of(dataset, weigh=weigh), sampler_of(dataset)
    for _ in range(2):
        for k in range(12):
            image, labels, weights = sampler[k]
            assert torch.equal(weights, labels + 0.5)
            assert equal((image, labels), plain[k])
    assert sorted(made) == list("abcdef")
    weighed = ROOM + 704  # four bytes of weight for each pixel
    small = sampler_of(dataset, weigh=weigh, cache_bytes=2 * weighed - 1)
    made.clear()
    assert [small[k] for k in range(24)]
    assert sorted(made).count("a") == 1
    assert all(made.count(name) > 1 for name in "bcdef")


def rare_dataset(folder, size=(60, 80)):
    """Six images, of which only the last has a class: on 4 of 4800 pixels, at an edge."""
    mask, rng = np.zeros(size, np.uint8), np.random.default_rng(0)
    for name in "abcdef":
        folder.save(f"images/{name}.png", rng.integers(0, 256, size, np.uint8))
        folder.save(f"masks/{name}.png", mask)
    mask[-2:, -2:] = 255
    folder.save("masks/f.png", mask)
    return open_dataset(folder.root)


@pytest.mark.parametrize("variation", [{"warp": 0.0}, {"warp": 1.0, "scale": (1.0, 1.0), "elastic": 0.0}])
def test_aimed_crops_show_every_class_equally_often(folder, variation):
    dataset = rare_dataset(folder)
    config = AugmentConfig(crop=(16, 20), **{"shear": 0.0, "rotation": 0.0, **variation})
    shows = {}
    for balance in (0.0, 1.0):
        sampler = CropSampler(dataset, dataset.samples, config, seed=1, length=60, balance=balance)
        shows[balance] = np.mean([(sampler[k][1] == 1).any() for k in range(60)])
    assert shows[0.0] < 0.1
    assert shows[1.0] == pytest.approx(0.5, abs=0.2)  # one of two classes


def test_no_balance_changes_nothing_and_some_only_its_share(folder):
    dataset = rare_dataset(folder)
    config = AugmentConfig(crop=(16, 20))
    plain, none, half = (
        CropSampler(dataset, dataset.samples, config, seed=1, length=80, **options)
        for options in ({}, {"balance": 0.0}, {"balance": 0.5})
    )
    same = [equal(plain[k], half[k]) for k in range(80)]
    assert all(equal(plain[k], none[k]) for k in range(80))
    assert 25 <= sum(same) <= 55


def test_there_is_no_crop_before_the_first(dataset):
    with pytest.raises(IndexError):
        sampler_of(dataset)[-1]


@pytest.mark.parametrize("damage", ["cut", "mask value"])
@pytest.mark.parametrize("in_worker", [False, True])
def test_a_file_that_breaks_during_training_is_named(folder, dataset, damage, in_worker):
    path = break_file(folder, damage)
    with pytest.raises(DataError) as error:
        crops(sampler_of(dataset))
    if in_worker:
        # What a DataLoader does with an exception of its worker; a real one needs 10 s to shut down.
        wrapped = ExceptionWrapper(
            (error.type, error.value, error.tb), where="in DataLoader worker process 0"
        )
        with pytest.raises(DataError) as error:
            wrapped.reraise()
    check_broken(error.value, path)


@pytest.mark.slow
def test_a_file_that_breaks_is_named_through_a_real_worker(folder, dataset):
    path = break_file(folder, "cut")
    with pytest.raises(DataError) as error:
        list(DataLoader(sampler_of(dataset), sampler=range(12), batch_size=4, num_workers=1))
    check_broken(error.value, path)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_broken_file_can_be_skipped_and_is_counted(folder, dataset, workers):
    whole = crops(sampler_of(dataset))
    break_file(folder, "cut")
    sampler = sampler_of(dataset, on_error="skip")
    loader = DataLoader(sampler, sampler=range(12), batch_size=None, num_workers=workers)
    drawn = list(loader)
    assert sampler.skipped == ("c",)
    names = [sampler.sample_of(k).name for k in range(12)]
    assert "c" in names
    assert all(equal(drawn[k], whole[k]) for k in range(12) if names[k] != "c")
    assert not any(equal(drawn[k], whole[k]) for k in range(12) if names[k] == "c")


def test_more_than_the_tolerated_broken_files_stop(folder, dataset):
    break_file(folder, "cut")
    folder.save("masks/e.png", np.full((12, 14), 9, np.uint8))
    with pytest.raises(
        DataError, match=r"2 of 6 images cannot be read, more than 1 \(1%\).*: c, e; .*e\.png"
    ):
        crops(sampler_of(dataset, on_error="skip"))


def test_a_hundredth_of_many_files_is_tolerated(dataset):
    many = dataset.samples * 50
    sampler = CropSampler(dataset, many, CONFIG, seed=0, length=300, on_error="skip")
    sampler._skipped[:3] = 1
    sampler._require_few(sampling_module.SampleError("x"))
    sampler._skipped[3] = 1
    with pytest.raises(DataError, match="4 of 300"):
        sampler._require_few(sampling_module.SampleError("x"))


def test_what_a_worker_reads_is_known_while_it_reads(dataset, monkeypatch):
    sampler, seen = sampler_of(dataset), []
    load = type(dataset).load
    worker = SimpleNamespace(id=3, num_workers=4)
    monkeypatch.setattr(sampling_module, "get_worker_info", lambda: worker)
    monkeypatch.setattr(
        type(dataset), "load", lambda self, sample: seen.append(sampler.reading) or load(self, sample)
    )
    sampler[0]
    assert seen == [{os.getpid(): str(sampler.sample_of(0).image)}]
    assert sampler.reading == {}


def crops(sampler):
    return [sampler[k] for k in range(12)]


def break_file(folder, damage):
    if damage == "mask value":
        return folder.save("masks/c.png", np.full((12, 14), 9, np.uint8))
    path = folder.root / "images/c.png"
    path.write_bytes(path.read_bytes()[:60])
    return path


def check_broken(error, path):
    assert str(error).startswith(str(path))
    assert "Traceback" not in str(error)
    assert error.exit_code == 2
    assert pickle.loads(pickle.dumps(error)).given == error.given


def test_what_cannot_be_sampled_is_refused(dataset):
    with pytest.raises(DataError, match="no samples"):
        CropSampler(dataset, (), CONFIG, seed=0)
    with pytest.raises(ConfigError, match="0 crops"):
        sampler_of(dataset, length=0)


def test_real_nuclei_reach_every_image_each_epoch(shared_data):
    dataset = open_dataset(shared_data / "nuclei")
    train = dataset.split("train")
    sampler = CropSampler(dataset, train, AugmentConfig(), seed=0, length=2 * len(train))
    for epoch in range(3):
        assert np.bincount(sampler.schedule(epoch), minlength=len(train)).min() >= 1
    images, labels = sampler[0]
    assert images.shape == (3, 256, 256)
    assert set(labels.unique().tolist()) <= {0, 1}
