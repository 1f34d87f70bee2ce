"""What can be answered of an image: one table of outputs, each a file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fullyconv.images import overlay, write_image, write_labels
from fullyconv.inference import Prediction, Shares
from fullyconv.outlines import encode_rles, to_geojson, write_geojson
from fullyconv.server.decoders import Place

OutputName = Literal["mask", "overlay", "json", "geojson", "labels", "probabilities", "image"]

ARCHIVE = "application/zip"
_SHOWN_PIXELS = 2**24  # of pictures that have to be painted; larger ones are shown with every n-th pixel


class ClassFacts(BaseModel):
    """A class, and how much of the image it is."""

    model_config = ConfigDict(extra="forbid")

    index: int = Field(description="Its number in masks and labels.")
    name: str
    color: tuple[int, int, int] = Field(description="Red, green and blue, 0 to 255.")
    pixels: int = Field(description="How many pixels have it.")
    fraction: float = Field(ge=0, le=1, description="Which part of the image that is.")
    rle: RunLengths | None = Field(None, description="Its mask, where it was asked for and has pixels.")


class RunLengths(BaseModel):
    """A mask as COCO's compressed run lengths."""

    model_config = ConfigDict(extra="forbid")

    size: Annotated[list[int], Field(min_length=2, max_length=2, description="Height and width.")]
    counts: str


class Result(BaseModel):
    """What a network says of one image."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="The name of the model that was asked.")
    height: int
    width: int
    exact: bool = Field(description="Whether this equals the prediction of the image as a whole.")
    approximate: list[str] = Field(description="Why it does not, where it does not.")
    classes: list[ClassFacts] = Field(description="All classes of the model, in order.")
    geojson: dict[str, Any] | None = Field(
        None, description="Outlines, where asked for: a FeatureCollection."
    )


class Wish(BaseModel):
    """What to answer, and how."""

    model_config = ConfigDict(extra="forbid")

    output: list[OutputName] = Field(
        [],
        max_length=7,
        description="What to answer; several make a ZIP file of them. Without it the Accept header decides.",
    )
    shapes: list[Literal["rle", "geojson"]] = Field(
        ["rle"], max_length=2, description="What `json` says of where the classes are."
    )
    dtype: Literal["float16", "uint8"] = Field(
        "float16", description="Of `probabilities`: 0 to 1, or 0 to 255."
    )
    opacity: float = Field(0.5, ge=0, le=1, allow_inf_nan=False, description="Of the colours in `overlay`.")


@dataclass(frozen=True)
class Answer:
    """All that outputs are made of.

    Parameters
    ----------
    model
        Name of the model.
    prediction
        What it said.
    place
        Where the image lies on the ground.
    wish
        What the client asked for.
    """

    model: str
    prediction: Prediction
    place: Place | None
    wish: Wish


@dataclass(frozen=True)
class Output:
    """A kind of output.

    Parameters
    ----------
    media_type
        Of its file.
    file_name
        What its file is called.
    write
        Writes it to a new file.
    """

    media_type: str
    file_name: str
    write: Callable[[Path, Answer], None]


def write_outputs(folder: Path, answer: Answer, names: Sequence[OutputName]) -> tuple[Path, str]:
    """Write outputs into a folder; return the file to send (a ZIP file of several), and its type."""
    outputs = [OUTPUTS[name] for name in dict.fromkeys(names)]
    for output in outputs:
        output.write(folder / output.file_name, answer)
    if len(outputs) == 1:
        return folder / outputs[0].file_name, outputs[0].media_type
    archive = folder / "outputs.zip"
    with zipfile.ZipFile(archive, "x", compresslevel=1) as file:
        for output in outputs:
            stored = output.media_type == "image/png"  # which is compressed already
            file.write(
                folder / output.file_name,
                output.file_name,
                zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED,
            )
    return archive, ARCHIVE


def _write_mask(path: Path, answer: Answer) -> None:
    write_labels(path, answer.prediction.labels, answer.prediction.classes)


def _write_overlay(path: Path, answer: Answer) -> None:
    prediction = answer.prediction
    every = _thinned(prediction.labels.shape)
    picture = overlay(
        prediction.image[every], prediction.labels[every], prediction.classes, opacity=answer.wish.opacity
    )
    write_image(path, picture)


def _write_image(path: Path, answer: Answer) -> None:
    prediction = answer.prediction
    image = prediction.image
    if image.dtype != np.uint8 or image.shape[2] not in (1, 3):  # such as no browser shows
        image = image[_thinned(prediction.labels.shape)]
        image = overlay(image, np.zeros(image.shape[:2], np.uint8), prediction.classes)
    write_image(path, image)


def _write_labels(path: Path, answer: Answer) -> None:
    np.save(path, answer.prediction.labels)


def _write_probabilities(path: Path, answer: Answer) -> None:
    probabilities = answer.prediction.probabilities
    assert probabilities is not None  # the worker was asked for them
    np.save(path, Shares(tuple(range(probabilities.shape[2])), answer.wish.dtype).kept(probabilities))


def _write_json(path: Path, answer: Answer) -> None:
    path.write_text(_result(answer).model_dump_json(exclude_none=True), "utf-8")


def _write_geojson(path: Path, answer: Answer) -> None:
    write_geojson(path, _outlines(answer))


def _result(answer: Answer) -> Result:
    prediction, shapes = answer.prediction, answer.wish.shapes
    labels, classes = prediction.labels, prediction.classes
    counts = np.bincount(labels.ravel(), minlength=len(classes))
    rles = encode_rles(labels) if "rle" in shapes else {}
    return Result(
        model=answer.model,
        height=labels.shape[0],
        width=labels.shape[1],
        exact=prediction.exact,
        approximate=list(prediction.reasons),
        classes=[
            ClassFacts(
                index=index,
                name=name,
                color=classes.colors[index],
                pixels=int(counts[index]),
                fraction=int(counts[index]) / labels.size,
                rle=RunLengths.model_validate(rles[index]) if index in rles else None,
            )
            for index, name in enumerate(classes.names)
        ],
        geojson=_outlines(answer) if "geojson" in shapes else None,
    )


def _outlines(answer: Answer) -> dict[str, Any]:
    prediction, place = answer.prediction, answer.place
    if place is None:
        return to_geojson(prediction.labels, prediction.classes)
    return to_geojson(prediction.labels, prediction.classes, transform=place.transform, crs=place.crs)


def _thinned(size: tuple[int, ...]) -> tuple[slice, slice]:
    step = max(1, ceil(sqrt(size[0] * size[1] / _SHOWN_PIXELS)))
    return slice(None, None, step), slice(None, None, step)


OUTPUTS: dict[OutputName, Output] = {
    "mask": Output("image/png", "mask.png", _write_mask),
    "overlay": Output("image/png", "overlay.png", _write_overlay),
    "json": Output("application/json", "result.json", _write_json),
    "geojson": Output("application/geo+json", "outlines.geojson", _write_geojson),
    "labels": Output("application/octet-stream", "labels.npy", _write_labels),
    "probabilities": Output("application/octet-stream", "probabilities.npy", _write_probabilities),
    "image": Output("image/png", "image.png", _write_image),
}
