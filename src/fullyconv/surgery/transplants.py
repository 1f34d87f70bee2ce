"""Weights from one network into another, by name and shape, with nothing left unexplained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fullyconv.errors import SurgeryError

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class TransplantReport:
    """What `transplant` did; names are the target's unless said otherwise.

    Parameters
    ----------
    copied
        Every tensor that was copied, the reshaped and renamed ones included.
    reshaped
        Those that went from a fully connected layer into a convolution.
    renamed
        (source name, target name) of those that have another name in the source.
    left
        Names in the source that were ignored.
    kept
        Those that were ignored: they keep the values they had.
    """

    copied: tuple[str, ...]
    reshaped: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    left: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.copied)} tensors copied"]
        if self.reshaped:
            parts.append(f"of them into a convolution's shape: {', '.join(self.reshaped)}")
        if self.renamed:
            parts.append(f"renamed: {', '.join(f'{old} -> {new}' for old, new in self.renamed)}")
        if self.left:
            parts.append(f"left in the source: {', '.join(self.left)}")
        if self.kept:
            parts.append(f"kept in the target: {', '.join(self.kept)}")
        return "; ".join(parts)


def transplant(
    source: nn.Module | Mapping[str, Tensor],
    target: nn.Module,
    *,
    rename: Mapping[str, str] = _NOTHING,
    ignore: Iterable[str] = (),
) -> TransplantReport:
    """Copy the parameters and buffers of one network into another, by name and shape.

    Every tensor of both sides is either copied or named in ``ignore``; otherwise nothing is copied at all.
    The weight of a fully connected layer goes into a convolution of the same name as `linear_to_conv` would
    put it there.

    Parameters
    ----------
    source
        The network, or its ``state_dict()``.
    target
        The network to write into, in place; its dtype and device stay.
    rename
        Source name → target name. A name stands for itself and everything below it: ``{"trunk": "backbone"}``
        moves ``trunk.0.weight`` to ``backbone.0.weight``. The longest name that fits counts.
    ignore
        Names, of the source before or after renaming or of the target, that are left where they are; each
        stands for everything below it too: ``["classifier"]``.

    Returns
    -------
    TransplantReport
        What was copied, reshaped, renamed and left.

    Raises
    ------
    SurgeryError
        With every reason at once, before anything is copied: a name that is missing on one side, shapes that
        differ, a dtype that would lose digits, tensors without values (lazy layers, the meta device), or a
        ``rename`` or ``ignore`` that fits nothing.

    Notes
    -----
    Buffers that a network does not save (``persistent=False``) are not part of it and stay as they are.
    Source: the reference implementation of Long, Shelhamer, Darrell (arXiv 1411.4038), ``surgery.py``, which
    coerces whatever has the right number of elements and drops the rest; this function asks first.
    """
    tensors = source.state_dict() if isinstance(source, nn.Module) else source
    places = target.state_dict()
    ignored = tuple(ignore)
    new_names = {name: _renamed(name, rename) for name in tensors}
    left = tuple(old for old, new in new_names.items() if _covered(old, ignored) or _covered(new, ignored))
    kept = tuple(name for name in places if _covered(name, ignored))
    moves = {old: new for old, new in new_names.items() if old not in left and new in places}

    problems = _misfits(tensors, target, places, moves)
    problems += [
        f"{_described(old, new)} is not in the target"
        for old, new in new_names.items()
        if old not in moves and old not in left
    ]
    filled = {*moves.values(), *kept}
    problems += [f"{name} of the target is not in the source" for name in places if name not in filled]
    problems += [
        f"rename {old!r} fits nothing in the source"
        for old in rename
        if not any(_covered(name, [old]) for name in tensors)
    ]
    present = {*tensors, *new_names.values(), *places}
    problems += [
        f"ignore {name!r} fits nothing on either side"
        for name in ignored
        if not any(_covered(other, [name]) for other in present)
    ]
    if problems:
        raise SurgeryError(
            "\n  - ".join(["source and target do not correspond, and nothing was copied:", *problems]) + "\n",
            "every tensor to have its place in the other network, with the same shape",
            "pass rename={'source name': 'target name'} for what only has another name, and "
            "ignore=['name', ...] for what is meant to stay behind",
        )
    with torch.no_grad():
        for old, new in moves.items():
            places[new].copy_(tensors[old].reshape(places[new].shape))
    return TransplantReport(
        copied=tuple(moves.values()),
        reshaped=tuple(new for old, new in moves.items() if tensors[old].shape != places[new].shape),
        renamed=tuple((old, new) for old, new in moves.items() if old != new),
        left=left,
        kept=kept,
    )


def _misfits(
    tensors: Mapping[str, Tensor], target: nn.Module, places: Mapping[str, Tensor], moves: Mapping[str, str]
) -> list[str]:
    """Return why tensors do not go where their names say."""
    problems = []
    taken: dict[str, str] = {}
    tied: dict[int, str] = {}
    for old, new in moves.items():
        tensor, place, name = tensors[old], places[new], _described(old, new)
        if new in taken:
            problems.append(f"{name} and {taken[new]} both go to the same place")
        elif not _has_values(tensor) or not _has_values(place):
            side = "target" if _has_values(tensor) else "source"
            problems.append(
                f"{name} has no values in the {side} (a lazy layer, the meta device or no tensor)"
            )
        elif tensor.shape != place.shape and not _becomes_kernel(tensor, place, target, new):
            problems.append(f"{name} is {_shape(tensor)} in the source, {_shape(place)} in the target")
        elif torch.promote_types(tensor.dtype, place.dtype) != place.dtype:
            problems.append(f"{name} is {tensor.dtype} in the source, {place.dtype} in the target")
        elif not torch.equal(tensor, tensors[tied.setdefault(place.data_ptr(), old)]):
            problems.append(f"{name} and {tied[place.data_ptr()]} differ, but are one tensor in the target")
        taken.setdefault(new, name)
    return problems


def _becomes_kernel(tensor: Tensor, place: Tensor, target: nn.Module, name: str) -> bool:
    """Tell whether a K×F matrix is the K×C×h×w kernel of the convolution called ``name`` in the target."""
    layer, _, attribute = name.rpartition(".")
    conv = dict(target.named_modules()).get(layer)
    return (
        isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and conv.groups == 1
        and attribute == "weight"
        and tensor.ndim == 2
        and tensor.shape[0] == place.shape[0]
        and tensor.numel() == place.numel()
    )


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    """Return the name after the longest entry of ``rename`` that covers it."""
    fitting = [old for old in rename if _covered(name, [old])]
    if not fitting:
        return name
    old = max(fitting, key=len)
    return rename[old] + name[len(old) :]


def _covered(name: str, names: Iterable[str]) -> bool:
    """Tell whether ``name`` is one of ``names`` or below one of them."""
    return any(name == other or name.startswith(f"{other}.") for other in names)


def _has_values(tensor: Tensor) -> bool:
    return isinstance(tensor, Tensor) and not is_lazy(tensor) and not tensor.is_meta


def _described(old: str, new: str) -> str:
    return old if old == new else f"{old} (renamed to {new})"


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"
