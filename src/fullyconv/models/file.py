"""The model file: one safetensors file with all that a network needs, as `docs/format.md` specifies it.

Reading never runs anything from the file and allocates nothing before the file has shown that it holds
exactly the tensors of the network its header describes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.types import FailFast
from safetensors.torch import save as serialize
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fullyconv.errors import ConfigError
from fullyconv.images import atomic_file
from fullyconv.labels import ClassTable
from fullyconv.models._container import (
    DTYPES,
    Entry,
    Malformed,
    opened,
    parse,
    parse_plain,
    read_directory,
    read_tensor,
)
from fullyconv.models.dense import DenseArchitecture, DensePredictor, build_classifier
from fullyconv.models.fcn import FCN, FCNArchitecture
from fullyconv.models.segmentation import Architecture, Normalization, Provenance, SegmentationModel
from fullyconv.models.unet import BackboneUNetArchitecture, UNet, UNetArchitecture

FORMAT = 1
MAX_CLASSES = 4096
PACKAGED = Path(__file__).with_name("packaged")
UPDATE = "pip install --upgrade fullyconv, which may know more"

_Kind = TypeVar("_Kind", bound=Architecture)
_Byte = Annotated[int, Field(ge=0, le=255)]


def _printable(name: str) -> str:
    # A name is shown on terminals, where control characters are commands.
    if not name.isprintable():
        raise ValueError("a class name has control characters")
    return name


_Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class HeaderClasses(BaseModel):
    """The class table as the file holds it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    names: Annotated[tuple[_Name, ...], Field(min_length=2, max_length=MAX_CLASSES), FailFast()]
    colors: Annotated[
        tuple[tuple[_Byte, _Byte, _Byte], ...], Field(min_length=2, max_length=MAX_CLASSES), FailFast()
    ]
    ignore_index: Annotated[int, Field(ge=0, le=65535)]


class ModelHeader(BaseModel, Generic[_Kind]):
    """All that a model file says about its network, apart from the weights."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1]
    architecture: _Kind
    classes: HeaderClasses
    channels: Annotated[int, Field(ge=1, le=4096)]
    normalization: Normalization
    provenance: Provenance

    @property
    def class_table(self) -> ClassTable:
        """The classes as the rest of the library knows them."""
        return ClassTable(self.classes.names, self.classes.colors, self.classes.ignore_index)


def save(model: SegmentationModel, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a network to a model file, whole or not at all; the same network gives the same bytes.

    Parameters
    ----------
    model
        Of a kind in `KINDS`, with float32 weights.
    path
        Conventionally with the suffix ``.safetensors``.
    overwrite
        Replace an existing file.

    Raises
    ------
    ConfigError
        The network is not one that `load` could read back.
    InputError
        The file exists, or its folder does not.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        text = _header_text(model)
        _require_equal(_described(tensors), _expected(_parsed(text)))
    except Malformed as error:
        raise ConfigError(
            f"a network that gives a file with {error}",
            "one that can be read back",
            "save the network itself, not a wrapped one; model.float() brings its type back",
        ) from error
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(serialize(tensors, metadata={"fullyconv": text}))


def load(path: str | Path) -> SegmentationModel:
    """Read a network from a model file, in evaluation mode, on the CPU.

    Parameters
    ----------
    path
        A model file, or the name of a model that comes with the package, such as "nuclei".

    Raises
    ------
    ModelFileError
        The file is not one, is damaged, or asks for what this version does not know.
    """
    with opened(locate(path)) as file:
        directory, start = read_directory(file)
        header = _parsed(directory.metadata.fullyconv)
        _require_classifier(directory.entries, header)
        _require_equal(_stored(directory.entries), _expected(header))
        with torch.random.fork_rng(devices=[]):  # what start values are drawn are drawn for nothing
            model = _build(header)
        for name, tensor in model.state_dict().items():
            tensor.copy_(read_tensor(file, start, directory.entries[name]))
    return model.eval()


def locate(path: str | Path) -> Path:
    """Return the file of a model that comes with the package, by its name; any other path as it is.

    A file of that name in the working folder comes first, and so does a folder with a model or folds in it.
    Other folders, such as one of images, do not.
    """
    path = Path(path)
    packaged = PACKAGED / f"{path}.safetensors"
    if path.name != str(path) or not packaged.exists():
        return path
    own = path.is_file() or (path / "model.safetensors").exists() or bool(_folds(path))
    return path if own else packaged


def _folds(folder: Path) -> tuple[Path, ...]:
    found = folder.glob("fold-*/model.safetensors")
    return tuple(sorted(found, key=lambda file: (len(str(file)), file)))


def model_files(path: str | Path) -> tuple[Path, ...]:
    """Return the model files that a path stands for: itself, or those of the folds in a folder.

    Raises
    ------
    ConfigError
        A folder without ``fold-1/model.safetensors`` and so on, as ``fullyconv train --folds`` leaves them.
    """
    path = locate(path)
    if not path.is_dir():
        return (path,)
    found = _folds(path)
    if not found:
        inside = path / "model.safetensors"
        raise ConfigError(
            f"{path}, a folder without folds",
            "a model file, or the folder of `fullyconv train --folds` with fold-1/model.safetensors",
            f"name the file: {inside}" if inside.exists() else "name a model file",
        )
    return found


def read_header(path: str | Path) -> ModelHeader[Any]:
    """Read what a model file says about its network, without the weights; for ``path`` see `load`.

    Raises
    ------
    ModelFileError
        The container or its header is not as specified.
    """
    with opened(locate(path)) as file:
        directory, _ = read_directory(file)
        return _parsed(directory.metadata.fullyconv)


def _header_text(model: SegmentationModel) -> str:
    header = {
        "format": FORMAT,
        "architecture": model.architecture.model_dump(mode="json"),
        "classes": asdict(model.classes),
        "channels": model.channels,
        "normalization": asdict(model.normalization),
        "provenance": asdict(model.provenance),
    }
    return json.dumps(header, sort_keys=True, separators=(",", ":"))


def _parsed(text: str) -> ModelHeader[Any]:
    plain = parse_plain(text)
    version, kind = _at(plain, "format"), _at(plain, "architecture", "kind")
    if version != FORMAT:
        raise Malformed(f"format version {version!r:.40}, where this library knows {FORMAT}", fix=UPDATE)
    if kind not in KINDS:
        raise Malformed(f"architecture {kind!r:.40}, where this library knows {', '.join(KINDS)}", fix=UPDATE)
    return parse(ModelHeader[KINDS[kind][0]], text)  # type: ignore[misc, arg-type]  # the kind is known at run time alone


def _at(plain: object, *keys: str) -> str | int | None:
    for key in keys:
        plain = plain.get(key) if isinstance(plain, dict) else None
    return plain if isinstance(plain, str | int) and not isinstance(plain, bool) else None


_DRAWS = {Tensor.normal_, Tensor.uniform_}


class _NoStartValues(TorchFunctionMode):
    """Leaves weights as they are: the file has them, and drawing them takes longer than reading them."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init" or function in _DRAWS:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def _build(header: ModelHeader[Any]) -> SegmentationModel:
    _, builder = KINDS[header.architecture.kind]
    with _NoStartValues():
        model = builder(
            classes=header.class_table,
            channels=header.channels,
            normalization=header.normalization,
            **header.architecture.options(),
        )
    model.provenance = header.provenance
    return model


_Shapes = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def _expected(header: ModelHeader[Any]) -> _Shapes:
    """Return what the network's tensors must look like, without making them."""
    with torch.device("meta"):
        return _described(_build(header).state_dict())


def _require_classifier(stored: Mapping[str, Entry], header: ModelHeader[Any]) -> None:
    """Refuse at once a file that has nothing of the classifier it names, or tensors of other sizes.

    To find out what all of its tensors would look like takes longer.
    """
    if header.architecture.classifier is None:
        return
    name, prefix = header.architecture.classifier
    library, _, network = name.partition(":")
    with torch.device("meta"), _NoStartValues():
        known = build_classifier(library, network, len(header.classes.names)).state_dict()
    held = {part.removeprefix(prefix): entry for part, entry in stored.items() if part.startswith(prefix)}
    # Of the others, layers behind the last map are left out, and which those are is not known yet.
    asked = known.keys() if header.architecture.kind == "dense" else known.keys() & held.keys()
    if not asked:
        raise Malformed(f"no tensor of {name}, which its header names")
    for part in sorted(asked):
        shape, expected = held[part].shape if part in held else None, tuple(known[part].shape)
        # Fully connected layers become convolutions; the first layer takes as many channels as images have.
        if shape is None or (math.prod(shape) != math.prod(expected) and header.channels == 3):
            raise Malformed(
                f"tensor {prefix + part[:100]!r} as {shape or 'none'}, "
                f"where {name}, which its header names, has {expected}"
            )


def _described(tensors: Mapping[str, Tensor]) -> _Shapes:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _stored(entries: Mapping[str, Entry]) -> _Shapes:
    return {name: (DTYPES[entry.dtype][0], entry.shape) for name, entry in entries.items()}


def _require_equal(stored: _Shapes, expected: _Shapes) -> None:
    for name in sorted(stored.keys() | expected.keys()):
        if stored.get(name) != expected.get(name):
            raise Malformed(
                f"tensor {name[:100]!r} as {stored.get(name, 'none')}, "
                f"where its architecture has {expected.get(name, 'none')}"
            )


# Kind -> (the options' model, what builds the network from them and `classes`, `channels` and
# `normalization`). A builder reads no file and no network, and allocates nothing but the network's tensors.
KINDS: dict[str, tuple[type[Architecture], Callable[..., SegmentationModel]]] = {
    "dense": (DenseArchitecture, DensePredictor),
    "unet": (UNetArchitecture, UNet),
    "backbone_unet": (BackboneUNetArchitecture, UNet),
    "fcn": (FCNArchitecture, FCN),
}
