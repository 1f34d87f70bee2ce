"""Trained classifiers by name or file, with what is needed to use them: size, normalisation, class names."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fullyconv.errors import ConfigError, MachineError, ModelFileError, SurgeryError
from fullyconv.models import DensePredictor, Normalization, load, read_header
from fullyconv.models.dense import LIBRARIES, Library, build_classifier
from fullyconv.surgery.transplants import transplant

Size = tuple[int, int]

_IMAGENET = 1000
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# Parts of a network that only its training uses, left out of what is built here.
_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier and what is needed to use it.

    Parameters
    ----------
    module
        N×C×H×W, normalised → N×K, in evaluation mode.
    library, name
        Where its architecture is from: a key of `fullyconv.models.dense.LIBRARIES`, and the name there.
    input_size
        (height, width) of the images it was trained on, in pixels.
    channels, classes
        C and K.
    normalization
        Of raw pixel values, 0 to 255.
    class_names
        Names of the K classes, where they are known.
    """

    module: nn.Module
    library: Library
    name: str
    input_size: Size
    channels: int
    classes: int
    normalization: Normalization
    class_names: tuple[str, ...] | None

    def to_model(self, output_stride: int | None = None) -> DensePredictor:
        """Return a network that labels pixels, with a copy of the weights; `fullyconv.save` writes it.

        Parameters
        ----------
        output_stride
            Dilate the classifier so that its windows lie so many pixels apart.

        Raises
        ------
        SurgeryError
            The classifier has no dense form.
        """
        model = DensePredictor(
            self.class_names or self.classes,
            self.channels,
            library=self.library,
            name=self.name,
            input_size=self.input_size,
            output_stride=output_stride,
            normalization=self.normalization,
        )
        model.dense.load_state_dict(self.module.state_dict())
        return model.eval()


@dataclass(frozen=True)
class _Recipe:
    """What a library knows about one of its classifiers: how it was trained, and where its weights are."""

    library: Library
    name: str
    input_size: Size
    normalization: Normalization
    pretrained: Any


def load_classifier(
    name_or_file: str | Path,
    *,
    weights: str | Path | None = None,
    input_size: int | Size | None = None,
    normalization: Normalization | None = None,
    class_names: Sequence[str] | None = None,
) -> Classifier:
    """Load a trained classifier.

    Parameters
    ----------
    name_or_file
        A name of torchvision or timm, such as ``"resnet18"`` (torchvision's where both have it),
        ``"timm/resnet18"`` or ``"timm/resnet18.a1_in1k"``; or a model file written by ``fullyconv convert``.
    weights
        A safetensors file, or a torch file that holds tensors alone; ``None`` for the pretrained ones of the
        library, from its cache or its hub; ``"none"`` for random ones.
    input_size
        (height, width) of the images it was trained on, or one number for both; the library's if not given.
    normalization
        Of raw pixel values; the library's where not given.
    class_names
        One name per class; ImageNet's where there are 1000 classes and none are given.

    Raises
    ------
    ConfigError
        No classifier of that name; the nearest names are in the message. Or so many names are not the
        number of classes.
    ModelFileError
        The file cannot be read, or could only be read by running code from it.
    SurgeryError
        Names or shapes in the file are not the classifier's; all are in the message.
    MachineError
        The pretrained weights are not in the library's cache and cannot be fetched; the message says which
        file to place where.
    """
    if Path(name_or_file).is_file():
        return _from_model_file(Path(name_or_file), weights)
    recipe = _recipe(str(name_or_file))
    if str(weights) == "none":
        module, classes = build_classifier(recipe.library, recipe.name, _IMAGENET), _IMAGENET
    elif weights is None:
        module, classes = _with_weights(recipe, _pretrained(recipe), "the library's own file")
    else:
        module, classes = _with_weights(recipe, _read_tensors(Path(weights)), str(weights))
    if class_names is None and classes == _IMAGENET:
        class_names = _imagenet_names()
    if class_names is not None and len(class_names) != classes:
        raise ConfigError(
            f"{len(class_names)} class names for a classifier of {classes} classes",
            "one name per class",
            "correct the list of names",
        )
    side = (input_size, input_size) if isinstance(input_size, int) else input_size
    return Classifier(
        module.eval(),
        recipe.library,
        recipe.name,
        side or recipe.input_size,
        3,
        classes,
        normalization or recipe.normalization,
        None if class_names is None else tuple(class_names),
    )


def _from_model_file(path: Path, weights: str | Path | None) -> Classifier:
    try:
        kind = read_header(path).architecture.kind
    except ModelFileError as error:
        hint = f"for weights alone name their architecture too: resnet18 with --weights {path}"
        raise ModelFileError(error.given, error.expected, f"{error.fix}; {hint}") from error
    if kind != "dense" or weights is not None:
        raise ConfigError(
            f"{path}, a model file of kind {kind!r}" + (", and weights besides" if weights else ""),
            "a model file of kind 'dense', which has its weights, or the name of a classifier",
            "write one: fullyconv convert resnet18 --out resnet18.safetensors",
        )
    model = cast(DensePredictor, load(path))
    options = model.architecture
    module = build_classifier(options.library, options.name, len(model.classes), model.channels)
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    tensors = model.dense.state_dict()
    module.load_state_dict({name: tensor.reshape(shapes[name]) for name, tensor in tensors.items()})
    return Classifier(
        module.eval(),
        options.library,
        options.name,
        options.input_size,
        model.channels,
        len(model.classes),
        model.normalization,
        model.classes.names,
    )


def _recipe(text: str) -> _Recipe:
    """Find a classifier by its name, with or without the library's."""
    prefix, _, name = text.rpartition("/")
    architecture, dot, _ = name.partition(".")
    libraries = [prefix] if prefix else list(get_args(Library))
    for library in libraries:
        tagged = bool(dot) and library != "timm"  # only timm has several weights of one architecture
        if library in LIBRARIES and architecture in LIBRARIES[library][0]() and not tagged:
            return _torchvision_recipe(name) if library == "torchvision" else _timm_recipe(name)
    known = [f"{library}/{name}" for library, (names, _) in LIBRARIES.items() for name in names()]
    near = [
        close for library in libraries for close in get_close_matches(f"{library}/{architecture}", known, n=3)
    ]
    raise ConfigError(
        f"classifier {text!r}, which is no file and no name that torchvision or timm know",
        "such as " + ", ".join(near or ["torchvision/resnet18", "timm/resnet18"]),
        "correct the name; python -c 'import timm; print(*timm.list_models())' lists all of timm's",
    )


def _torchvision_recipe(name: str) -> _Recipe:
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(name).DEFAULT
    preset = weights.transforms()
    mean, std = preset.mean, preset.std
    if name in _AUXILIARY:  # their pretrained forms bring ImageNet's mean and deviation to these inside
        mean = std = (0.5, 0.5, 0.5)
    side = preset.crop_size[0]
    return _Recipe("torchvision", name, (side, side), _raw(mean, std), weights)


def _timm_recipe(name: str) -> _Recipe:
    import timm
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    architecture, _, tag = name.partition(".")
    tags = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in tags:
        raise ConfigError(f"timm/{name}", f"one of {', '.join(tags)}", "correct what is after the dot")
    known = timm.get_pretrained_cfg(name)
    size = known.input_size[1:] if known else (224, 224)
    mean, std = (known.mean, known.std) if known else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    return _Recipe("timm", architecture, (int(size[0]), int(size[1])), _raw(mean, std), known)


def _raw(mean: Sequence[float], std: Sequence[float]) -> Normalization:
    """Bring what libraries say of values from 0 to 1 to values from 0 to 255."""
    return Normalization(tuple(255.0 * part for part in mean), tuple(255.0 * part for part in std))


def _imagenet_names() -> tuple[str, ...]:
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])


def _with_weights(recipe: _Recipe, tensors: dict[str, Tensor], origin: str) -> tuple[nn.Module, int]:
    """Build a classifier with as many classes as its weights have; return it and the number."""
    unused = _AUXILIARY.get(recipe.name, ()) if recipe.library == "torchvision" else ()
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(unused or "\0")}
    classes = _classes_of(recipe, tensors)
    module = build_classifier(recipe.library, recipe.name, classes)
    try:
        transplant(tensors, module)
    except SurgeryError as error:
        raise SurgeryError(
            f"{origin} does not hold the weights of {recipe.library}/{recipe.name}: {error.given}",
            "exactly the tensors of that classifier; only the number of classes may differ",
            "name the architecture that the weights were trained in",
        ) from error
    return module, classes


def _classes_of(recipe: _Recipe, tensors: dict[str, Tensor]) -> int:
    """Return the number of classes: where weights differ from the architecture in their first axis alone."""
    with torch.device("meta"):
        expected = build_classifier(recipe.library, recipe.name, _IMAGENET).state_dict()
    counts = {
        tensors[name].shape[0]
        for name, like in expected.items()
        if name in tensors
        and tensors[name].shape != like.shape
        and tensors[name].dim()
        and like.shape[:1] == (_IMAGENET,)
        and tensors[name].shape[1:] == like.shape[1:]
    }
    return counts.pop() if len(counts) == 1 else _IMAGENET


def _pretrained(recipe: _Recipe) -> dict[str, Tensor]:
    """Return a library's own weights, from its cache or its hub."""
    try:
        if recipe.library == "torchvision":
            state = recipe.pretrained.get_state_dict(progress=False, check_hash=True, weights_only=True)
            return dict(state)
        import timm

        tag = getattr(recipe.pretrained, "tag", "")
        name = f"{recipe.name}.{tag}" if tag else recipe.name
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except Exception as error:  # whatever failed on the way to a hub, the remedy is the same
        raise MachineError(
            f"the pretrained weights of {recipe.library}/{recipe.name} are not on this machine and cannot be "
            f"fetched ({_first_line(error)})",
            *_placement(recipe),
        ) from error


def _placement(recipe: _Recipe) -> tuple[str, str]:
    """Say which file of pretrained weights is expected where, and how to bring it there."""
    otherwise = "or pass --weights FILE, or --weights none for random ones"
    if recipe.library == "torchvision":
        url = recipe.pretrained.url
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        return f"{folder / url.rpartition('/')[2]}", f"download {url} and place it there, {otherwise}"
    hub = getattr(recipe.pretrained, "hf_hub_id", None)
    if not hub:
        return "weights that timm can fetch", f"there are none for this name; {otherwise.removeprefix('or ')}"
    file = recipe.pretrained.hf_hub_filename or "model.safetensors"
    return (
        f"{file} of https://huggingface.co/{hub} in Hugging Face's cache",
        f"on a machine that is online: hf download {hub} {file}; then copy ~/.cache/huggingface, {otherwise}",
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of weights without running anything from it."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        content: Any = load_file(path) if start[8:] == b"{" else _torch_file(path)
    except Exception as error:  # a damaged file can make the libraries that read it raise anything
        if isinstance(error, UnpicklingError) and start.startswith((b"PK", b"\x80")):
            raise ModelFileError(
                f"{path}, a pickle that holds more than tensors: reading it would run code from it",
                "a safetensors file, or a torch file of a state dict alone",
                "where you trust it: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
            ) from error
        raise ModelFileError(
            f"{path} cannot be read as weights ({_first_line(error)})",
            "a safetensors file, or a torch file of a state dict",
            "check the name, and copy it again if it was damaged on the way",
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelFileError(
            f"{path}, which holds a {type(content).__name__} that is no state dict",
            "tensors by name",
            "save model.state_dict()",
        )
    # What nn.DataParallel puts before every name.
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _torch_file(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the pickle's age, which is nothing to the user
        return torch.load(path, map_location="cpu", weights_only=True)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
