"""`convolutionalize`: a classifier as a network that slides over images of any size."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from types import ModuleType
from typing import Any

from torch import Tensor, fx, nn

from fullyconv.errors import ConfigError, SurgeryError
from fullyconv.surgery.context import global_context
from fullyconv.surgery.lifting import Lifting, refuse_mixing, trunk_nodes
from fullyconv.surgery.positions import output_size, survey
from fullyconv.surgery.reach import receptive_field
from fullyconv.surgery.rules import RULES, at_each_position
from fullyconv.surgery.sliding import fit
from fullyconv.surgery.tracing import trace

Size = tuple[int, int]


class Program:
    """The code of a graph as a function of a module and an image; can be copied and pickled."""

    def __init__(self, source: str, names: Mapping[str, Any], modules: Mapping[str, str]) -> None:
        self.source, self.names, self.modules = source, dict(names), dict(modules)
        scope = {**names, **{name: importlib.import_module(path) for name, path in modules.items()}}
        exec(compile(source, "<dense classifier>", "exec"), scope)
        self._function: Callable[..., Any] = scope["forward"]

    @classmethod
    def of(cls, graph: fx.Graph) -> Program:
        """Generate the code of a graph."""
        code = graph.python_code("self")
        modules = {
            name: thing.__name__ for name, thing in code.globals.items() if isinstance(thing, ModuleType)
        }
        return cls(code.src, {k: v for k, v in code.globals.items() if k not in modules}, modules)

    def __call__(self, module: Any, *images: Tensor) -> Any:
        """Run the code."""
        return self._function(module, *images)

    def __reduce__(self) -> tuple[Any, ...]:
        return Program, (self.source, self.names, self.modules)


class DenseClassifier(nn.Module):
    """A classifier that gives its scores at every position; made by `convolutionalize`.

    The layers have the names they had in the classifier, and share its weights. ``state_dict`` has the
    classifier's names; ``load_state_dict`` takes a classifier's state dict too.

    Attributes
    ----------
    input_size : tuple of int
        (height, width) of the images the classifier was trained on: the smallest image, and a cell's window.
    channels : int
        Channels of the images.
    stride : tuple of int
        Image pixels from one cell of the scores to the next, (down, right).
    global_context : tuple of str
        Layers through which every cell depends on the whole image, such as squeeze-and-excite. Where there
        are any, scores of a large image differ from those of its windows.
    class_names : tuple of str or None
        Names of the K classes where they are known.
    pad : bool
        Whether smaller images are padded with zeros to ``input_size``.
    """

    def __init__(
        self,
        programs: Mapping[bool, Program],
        parts: Mapping[str, Any],
        *,
        input_size: Size,
        channels: int,
        stride: Size,
        global_context: tuple[str, ...] = (),
        class_names: tuple[str, ...] | None = None,
        pad: bool = False,
        flattened: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        for target, part in parts.items():
            _mount(self, target, part)
        self.input_size, self.channels, self.stride, self.pad = input_size, channels, stride, pad
        self.global_context, self.class_names = global_context, class_names
        self._programs, self._flattened = dict(programs), flattened

    def forward(self, images: Tensor) -> Any:
        """Score images at every position.

        Parameters
        ----------
        images
            N×C×H×W, normalised as the classifier wants it; H×W at least ``input_size`` unless ``pad``.

        Returns
        -------
        Tensor
            N×K×h×w; a classifier with several outputs gives them in the structure it gives them in.

        Raises
        ------
        GeometryError
            The images have other channels, or are smaller than ``input_size`` and ``pad`` is off.
        """
        return self._programs[self.training](self, fit(images, self.channels, self.input_size, self.pad))

    def rewritten(
        self, graphs: Mapping[bool, fx.Graph], parts: Mapping[str, Any], stride: Size
    ) -> DenseClassifier:
        """Return this classifier with another graph for each mode (training or not) and its parts by name."""
        made = DenseClassifier(
            {training: Program.of(graph) for training, graph in graphs.items()},
            parts,
            input_size=self.input_size,
            channels=self.channels,
            stride=stride,
            global_context=self.global_context,
            class_names=self.class_names,
            pad=self.pad,
            flattened=self._flattened,
        )
        made.training = self.training
        return made

    def cells(self, size: Size) -> Size:
        """Return (height, width) of the scores of an image of ``size``, without computing them."""
        return output_size(trace(self, training=False), self.channels, size)

    @property
    def receptive_field(self) -> Size | None:
        """(height, width) in pixels that one cell depends on; None where `global_context` is not empty.

        Where a layer could not be traced, an upper bound.
        """
        if self.global_context:
            return None
        traced = trace(self, training=False)
        return receptive_field(traced, survey(traced, self.channels, self.input_size))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load this network's or the classifier's state dict; see ``nn.Module.load_state_dict``."""
        own = dict(self.named_parameters())
        shaped = {
            name: value.reshape(own[name].shape)
            if name in self._flattened and value.dim() == 2 and value.numel() == own[name].numel()
            else value
            for name, value in state_dict.items()
        }
        return super().load_state_dict(shaped, strict, assign)

    def extra_repr(self) -> str:
        """Show what the network is."""
        return f"input_size={self.input_size}, stride={self.stride}, global_context={self.global_context}"


def convolutionalize(
    classifier: nn.Module,
    input_size: int | Size,
    pad: bool = False,
    *,
    channels: int | None = None,
    class_names: Sequence[str] | None = None,
) -> DenseClassifier:
    """Turn a classifier into a network that gives its scores at every position of a larger image.

    The layers up to the last maps stay as they are. Where maps become a vector (flatten, pooling, mean over
    space) the operation becomes its sliding form, and every operation after it the same operation at each
    position: a fully connected layer becomes a convolution.

    Parameters
    ----------
    classifier
        Any network of convolutions from torchvision, timm or your own, N×C×H×W → N×K. It is left as it is and
        shares its weights with the result: the same parameters where the shape stays, views of the same
        memory for fully connected layers.
    input_size
        (height, width) of the images it was trained on, or one number for both.
    pad
        Pad smaller images evenly with zeros to ``input_size``, instead of an error.
    channels
        Channels of the images; found from the first convolution where not given.
    class_names
        Names of the K classes; found where torchvision or timm knows them.

    Returns
    -------
    DenseClassifier
        N×C×H×W → N×K×h×w for images of any size from ``input_size``; N×K×1×1 with exactly the classifier's
        scores on ``input_size``. In train mode, auxiliary outputs are dense too.

    Raises
    ------
    SurgeryError
        The classifier has no dense form, cannot be traced, or does not run on ``input_size``. The message
        names the layer.
    ConfigError
        ``input_size`` is not one or two positive numbers.

    Notes
    -----
    Each cell equals the classifier's head on a window of the feature map, always. It equals the classifier
    on a crop of the image only where no layer pads with zeros and ``global_context`` is empty:
    >>> classifier = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
    (arXiv 1411.4038), section 3.1.

    Examples
    --------
    >>> classifier = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
    >>> dense = convolutionalize(classifier, input_size=(8, 8))
    >>> dense(torch.zeros(1, 3, 12, 10)).shape
    torch.Size([1, 10, 5, 3])
    """
    if not isinstance(classifier, nn.Module):
        raise ConfigError(
            f"a classifier of type {type(classifier).__name__}",
            "an nn.Module",
            "pass the network itself, such as torchvision.models.resnet18(); load_classifier takes names",
        )
    size = _checked_size(input_size)
    channels = channels or _channels(classifier)
    traces = {training: trace(classifier, training=training) for training in (False, True)}
    if _source(traces[True].graph) == _source(traces[False].graph):
        traces[True] = traces[False]
    refuse_mixing(traces[False])
    layers: dict[str, nn.Module] = {}
    liftings = {
        traced: Lifting(traced, survey(traced, channels, size), RULES, at_each_position, layers)
        for traced in dict.fromkeys(traces.values())
    }
    scores = {traced: lifting.run() for traced, lifting in liftings.items()}
    evaluated = traces[False]
    places = liftings[evaluated].places
    dense = DenseClassifier(
        {training: Program.of(liftings[traced].graph) for training, traced in traces.items()},
        {
            target: layers[target] if target in layers else traced.attribute(target)
            for traced, lifting in liftings.items()
            for target in _targets(lifting.graph)
        },
        input_size=size,
        channels=channels,
        stride=_whole(scores[evaluated].stride),
        global_context=global_context(evaluated, places, trunk_nodes(evaluated, places)),
        class_names=tuple(class_names)
        if class_names
        else _class_names(classifier, scores[evaluated].channels),
        pad=pad,
        flattened=frozenset(name for lifting in liftings.values() for name in lifting.flattened),
    )
    dense.training = classifier.training
    return dense


def _source(graph: fx.Graph) -> str:
    return graph.python_code("self").src


def _checked_size(size: int | Size) -> Size:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(extent, int) and extent > 0 for extent in pair):
        raise ConfigError(
            f"input_size={size!r}", "(height, width), two whole numbers from 1", "pass input_size=(224, 224)"
        )
    return pair[0], pair[1]


def _channels(classifier: nn.Module) -> int:
    """Return the channels of the images, as the first convolution tells them."""
    known = getattr(classifier, "pretrained_cfg", None)
    first = next((layer for layer in classifier.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None:
        raise SurgeryError(
            f"{type(classifier).__name__}, which has no nn.Conv2d",
            "a convolutional classifier",
            "pass channels= where it convolves in another way",
        )
    return int(
        getattr(classifier, "in_chans", None)
        or (first.in_channels if not known else min(3, first.in_channels))
    )


def _targets(graph: fx.Graph) -> list[str]:
    return [str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")]


def _mount(root: nn.Module, target: str, part: Any) -> None:
    """Put a layer, parameter or buffer at its dotted name, with plain modules on the way."""
    *path, name = target.split(".")
    owner = root
    for step in path:
        if not hasattr(owner, step):
            owner.add_module(step, nn.Module())
        owner = getattr(owner, step)
    if isinstance(part, nn.Module):
        owner.add_module(name, part)
    elif isinstance(part, nn.Parameter):
        owner.register_parameter(name, part)
    elif isinstance(part, Tensor):
        owner.register_buffer(name, part)
    else:
        setattr(owner, name, part)


def _whole(stride: tuple[Fraction, Fraction]) -> Size:
    """Return the stride in whole pixels."""
    return max(1, int(stride[0])), max(1, int(stride[1]))


def _class_names(classifier: nn.Module, count: int) -> tuple[str, ...] | None:
    """Return the names a model of torchvision or timm with ImageNet's 1000 outputs has."""
    library = type(classifier).__module__.partition(".")[0]
    if count != 1000 or library not in ("torchvision", "timm") or library not in sys.modules:
        return None
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])
