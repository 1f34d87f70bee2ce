"""A classifier on 36 windows against one pass of its dense form, and where it sees each class."""

from __future__ import annotations

import numpy as np
import torch

from fullyconv.classifiers import Classifier
from fullyconv.explanation.classmaps import heatmaps
from fullyconv.explanation.document import Gallery, Printed, Section, Source, Table
from fullyconv.explanation.drawing import HEAT, Box, Layer, Picture, Pixels, Scale, grayed, heat, photograph
from fullyconv.explanation.subject import CELLS, Raw, Subject, window_of
from fullyconv.progress import Progress
from fullyconv.surgery import compare_with_windows

_PUBLISHED_STEP = 32
_PUBLISHED = (
    " (A network whose windows lie 32 pixels apart has its six by six positions on 384×384 pixels: "
    "(384 − 224) / 32 + 1 = 6.)"
)
_THUMBNAIL = 64  # pixels
_GAP = 4
_DRAWN = 5  # classes


def explain_windows(subject: Subject, progress: Progress) -> Section:
    """Show the windows, the scores of the one pass, and the printed proof that they are the same."""
    network, classifier = subject.network, subject.model
    assert isinstance(network, Raw)
    assert isinstance(classifier, Classifier)
    dense = network.dense
    report = compare_with_windows(
        dense, classifier.module, network.normalized(subject.image), batch_size=CELLS, repeats=1
    )
    side, step, length = dense.input_size[0], dense.stride[0], subject.size[0]
    best = int(subject.probabilities.max(axis=(1, 2)).argmax())
    name = subject.classes.names[best]
    cells = subject.probabilities[best]
    rows, columns = window_of(dense, subject.position)
    window = Box(rows, columns)
    pictures = (
        Picture(
            subject.size,
            (Layer(subject.photo),),
            f"The image: {length}×{subject.size[1]}",
            f"Framed: the window of {side}×{dense.input_size[1]} pixels around the ring, one of "
            f"{cells.size}.",
            "The image with one window framed.",
            (window, subject.mark),
        ),
        _sheet(subject),
        Picture(
            (cells.shape[0], cells.shape[1]),
            (Layer(HEAT.paint(cells, 0, 1), blocks=True),),
            f"One pass: {cells.shape[0]}×{cells.shape[1]} scores",
            f"How probable {name} is at each position.",
            f"A grid of {cells.size} probabilities of {name}, from {cells.min():.0%} to {cells.max():.0%}.",
            (),
            Scale(HEAT, "0 %", "100 %"),
        ),
    )
    return Section(
        "Windows against one pass",
        (
            f"This classifier was trained on images of {side}×{dense.input_size[1]}. To ask it about every "
            f"place of a larger image, one could cut out window after window, {step} pixels apart, and "
            f"classify each: ({length} − {side}) / {step} + 1 = {cells.shape[0]} down and {cells.shape[1]} "
            f"across, {cells.size} windows.",
            "But neighbouring windows share most of their pixels, and a fully connected layer is a "
            "convolution whose kernel is as large as the map. Written that way, the same weights run over "
            "the whole image at once, and what neighbours share is computed once."
            + ("" if step == _PUBLISHED_STEP else _PUBLISHED),
            Gallery(pictures),
            "The proof, computed just now on this image:",
            Printed(str(report)),
            "The first difference is the law: at each position, the one pass is the classifier's head on "
            "that window of the features, up to rounding. The second compares with cut-out windows. There, "
            "layers that pad with zeros put zeros beyond the border of each cut-out, where the one pass "
            "sees the image go on.",
            _grid(subject),
        ),
        (
            Source(
                "Long, Shelhamer, Darrell, arXiv 1411.4038, section 3.1 and figure 2",
                "https://arxiv.org/abs/1411.4038",
            ),
        ),
        {
            "cells": list(report.cells),
            "image_size": list(report.image_size),
            "head_difference": float(np.nanmax(report.head_difference)),
            "crop_difference": float(np.nanmax(report.crop_difference)),
            "speed_up": report.speed_up,
        },
    )


def explain_class_maps(subject: Subject, progress: Progress) -> Section:
    """Show where the classifier sees the classes it finds most of."""
    assert isinstance(subject.model, Classifier)
    found = heatmaps(subject.model, subject.given, top=_DRAWN)
    photo = photograph(found.image)
    size = (photo.shape[0], photo.shape[1])
    most = max(float(found.maps.max()), 1e-6)
    pictures = [Picture(size, (Layer(photo),), "The image", "All of it.", "The image, all of it.")]
    pictures += [
        Picture(
            size,
            (Layer(grayed(photo)), heat(values, most)),
            found.class_names[k],
            f"{found.shares[k]:.1%} on average over the windows, {values.max():.0%} at most.",
            f"Where {found.class_names[k]} is seen: up to {values.max():.0%}.",
            scale=Scale(HEAT, "0 %", f"{most:.0%}"),
        )
        for k, values in zip(found.chosen, found.maps, strict=True)
    ]
    return Section(
        "Where the classifier sees each class",
        (
            f"Over all of the image, seen at {found.seen_size[0]}×{found.seen_size[1]} pixels, the one pass "
            f"has {found.scores.shape[1]}×{found.scores.shape[2]} positions. At each position the scores "
            "become probabilities, and these are interpolated from the centres of the windows to the "
            "pixels. All maps have the same scale. Nobody ever showed this classifier where things are: it "
            "was trained on whole images, and knows only by sliding.",
            Gallery(tuple(pictures)),
        ),
        (
            Source(
                "Long, Shelhamer, Darrell, arXiv 1411.4038, section 3.1", "https://arxiv.org/abs/1411.4038"
            ),
        ),
        {"shares": dict(found.top(_DRAWN))},
    )


def _sheet(subject: Subject) -> Picture:
    """Return all windows as small pictures in a grid."""
    assert isinstance(subject.network, Raw)
    dense = subject.network.dense
    down, across = subject.scores.shape[-2:]
    pitch = _THUMBNAIL + _GAP
    sheet: Pixels = np.full((down * pitch - _GAP, across * pitch - _GAP, 3), 255, np.uint8)
    for i, j in np.ndindex(down, across):
        (top, bottom), (left, right) = window_of(dense, (i, j))
        crop = torch.from_numpy(subject.photo[top:bottom, left:right].transpose(2, 0, 1)).float()
        small = torch.nn.functional.interpolate(crop[None], (_THUMBNAIL, _THUMBNAIL), mode="area")[0]
        sheet[i * pitch :, j * pitch :][:_THUMBNAIL, :_THUMBNAIL] = small.byte().permute(1, 2, 0).numpy()
    return Picture(
        (sheet.shape[0], sheet.shape[1]),
        (Layer(sheet),),
        f"Window by window: {down * across} images",
        f"Each is classified on its own. Together they have {_area_ratio(subject):.1f} times the image's "
        "pixels.",
        f"A sheet of {down} by {across} overlapping cut-outs of the image.",
    )


def _area_ratio(subject: Subject) -> float:
    assert isinstance(subject.network, Raw)
    height, width = subject.network.dense.input_size
    return height * width * subject.scores[0, 0].numel() / (subject.size[0] * subject.size[1])


def _grid(subject: Subject) -> Table:
    best = subject.scores[0].argmax(0).numpy()
    rows = tuple(
        (
            f"row {i}",
            *(f"{subject.classes.names[k]} {subject.probabilities[k, i, j]:.0%}" for j, k in enumerate(line)),
        )
        for i, line in enumerate(best)
    )
    head = ("", *(f"column {j}" for j in range(best.shape[1])))
    return Table("The best class at each position of the one pass", head, rows)
