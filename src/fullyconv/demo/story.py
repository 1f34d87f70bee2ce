"""The demonstration, told with public functions only."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fullyconv as fc
from fullyconv.demo.classifier import HEIGHTS, WINDOW, DigitClassifier, train_digit_classifier
from fullyconv.demo.handwriting import CLASSES
from fullyconv.demo.scenes import large_scene, write_scenes
from fullyconv.errors import ConfigError, MachineError
from fullyconv.explanation import save_heatmaps
from fullyconv.images import write_image, write_labels
from fullyconv.metrics import ConfusionMatrix, Scores
from fullyconv.progress import Progress

LARGE = (4096, 4096)
SLID_OVER = (512, 768)
DIGITS = ("two", "three", "five", "seven", "eight")  # whose heatmaps are drawn
SHOWN = 1024  # side of the part of the large scene that is drawn as a picture to look at


@dataclass(frozen=True)
class Story:
    """What the demonstration measured and where its pictures are.

    Parameters
    ----------
    classifier_accuracy
        Of the digit classifier, on windows of digits it never saw.
    evaluation
        Of the segmentation network, on validation scenes of digits it never saw.
    large
        Its scores on a scene of 4096×4096.
    large_seconds
        How long that scene took.
    pictures
        Files to look at, by what they show.
    seconds
        How long everything took.
    """

    classifier_accuracy: float
    evaluation: fc.Evaluation
    large: Scores
    large_seconds: float
    pictures: dict[str, tuple[Path, ...]]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values, the four scores at the top level."""
        return {
            **self.evaluation.to_dict(),
            "classifier_accuracy": self.classifier_accuracy,
            "large": self.large.to_dict(),
            "large_seconds": self.large_seconds,
            "pictures": {shown: [str(path) for path in paths] for shown, paths in self.pictures.items()},
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        megapixels = LARGE[0] * LARGE[1] / 1e6
        return "\n".join(
            [
                str(self.evaluation),
                f"digit classifier: {self.classifier_accuracy:.1%} of windows right",
                f"scene of {LARGE[0]}×{LARGE[1]}: mean IU {self.large.mean_iu:.4f}, "
                f"{self.large_seconds:.1f} s, {megapixels / self.large_seconds:.1f} megapixels/s",
                f"everything took {self.seconds:.0f} s; look at:",
                *(
                    "\n    ".join([f"  {shown}:", *map(str, paths)])
                    for shown, paths in self.pictures.items()
                    if paths
                ),
                f"colours: {', '.join(map(_color_of, range(1, len(CLASSES))))}",
            ]
        )


def tell(folder: Path, *, minutes: float, scenes: int, seed: int, progress: Progress) -> Story:
    """Write scenes, train a classifier and a network, score it, and predict what it never saw.

    Parameters
    ----------
    folder
        New or empty; everything is written there.
    minutes
        For the segmentation network's training.
    scenes
        How many are written for it.
    seed
        Of everything.
    progress
        Told what happens.

    Raises
    ------
    ConfigError
        The folder holds something already.
    """
    started = time.monotonic()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder}, which is not empty", "a new folder", "remove it, or choose another --out"
        )
    progress.say(f"1. writing {scenes} scenes of handwritten digits to {folder / 'scenes'}")
    data = write_scenes(folder / "scenes", scenes, seed)

    progress.say("2. training a classifier of 32×32 windows")
    classifier = train_digit_classifier(seed, progress=progress)
    progress.say(f"   {classifier.accuracy:.1%} of unseen windows right")
    heatmaps = _slide(classifier.model, seed, folder / "heatmaps", progress)

    progress.say("3. training a segmentation network on the scenes")
    # Handwriting is neither mirrored nor turned: a 6 would become a 9. What a digit is shows in its whole
    # stroke, so a network that must score from deep features learns sooner than one that can look at ink.
    # Small batches: slow processors have time for few steps, which had better be many small ones.
    augment = fc.AugmentConfig(crop=(96, 96), flips="none", quarter_turns=False, rotation=10, warp=0.3)
    config = fc.TrainConfig(
        network="fcn4s",
        backbone="timm:resnet10t",
        minutes=minutes,
        loss="cross_entropy",
        learning_rate=3e-3,
        batch=4,
        average=0.995,
        augment=augment,
        seed=seed,
    )
    result = fc.train(None, data, out=folder / "run", config=config, progress=progress)

    progress.say(f"4. predicting a scene of {LARGE[0]}×{LARGE[1]} that it never saw")
    scene = large_scene(seed, LARGE)
    before = time.monotonic()
    prediction = fc.predict(result.model, scene.image, progress=progress)
    large_seconds = time.monotonic() - before
    matrix = ConfusionMatrix(len(prediction.classes))
    matrix.update(scene.labels, prediction.labels, prediction.classes.ignore_index)
    corner, whole = folder / "large" / "corner.png", folder / "large" / "mask.png"
    corner.parent.mkdir()
    write_labels(whole, prediction.labels, prediction.classes)
    write_image(corner, prediction.overlay()[:SHOWN, :SHOWN])
    overlays = tuple(sorted((folder / "run" / "overlays" / "last").rglob("*.png")))
    return Story(
        classifier.accuracy,
        result.evaluation,
        matrix.scores(),
        large_seconds,
        {
            "where the classifier sees some digits, though it never learned where they are": heatmaps,
            "scenes the network never saw: on the left what is true, on the right its answer": overlays,
            f"a corner of the scene of {LARGE[0]}×{LARGE[1]} with its answer, and all of its mask": (
                corner,
                whole,
            ),
        },
        time.monotonic() - started,
    )


def _color_of(digit: int) -> str:
    return f"{CLASSES.names[digit]} #{bytes(CLASSES.colors[digit]).hex()}"


def _slide(classifier: DigitClassifier, seed: int, folder: Path, progress: Progress) -> tuple[Path, ...]:
    """Slide the classifier over a scene it never saw, and draw where it sees some digits."""
    dense = fc.convolutionalize(classifier, WINDOW, class_names=CLASSES.names)
    scene = large_scene(seed + 1, SLID_OVER, heights=HEIGHTS)
    maps = fc.heatmaps(dense, scene.image, classes=DIGITS)
    window, size = ("×".join(map(str, pair)) for pair in (WINDOW, SLID_OVER))
    classes, height, width = maps.scores.shape
    progress.say(f"   {window} windows → {size} scene → {height}×{width}×{classes} scores")
    try:
        return save_heatmaps(maps, folder)[:1]
    except MachineError as error:  # the picture is an extra, and the story goes on without it
        progress.say(f"   no picture of the heatmaps: {error}")
        return ()
