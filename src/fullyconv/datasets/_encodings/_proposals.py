"""What to tell people whose masks do not explain themselves: a ``classes.toml`` to paste where one helps."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping

import numpy as np

from fullyconv.datasets._classfile import FILE_NAME, class_file_text
from fullyconv.datasets._encodings._codes import LEAST_APART, Census, total_codes, unpack_color
from fullyconv.errors import DataError
from fullyconv.labels import Color, default_color

# More colours or gaps than this are no classes but anti-aliasing, compression or object numbers.
MOST_PROPOSED = 64
MOST_CLASSES_UNNAMED = 255

# What tells colours of classes from those of borders: shares of all pixels, and of the classes beside.
_LEAST_AT_MODES = 0.8
_LEAST_OF_MODE = 0.002
_LEAST_OF_PARENTS = 0.25


def colors_need_names(censuses: list[Census], reason: str, names: tuple[str, ...]) -> DataError:
    totals = total_codes([census for census in censuses if census.colored])
    if len(totals) > MOST_PROPOSED:
        modes = _modes(totals)
        reason = f"hold {len(totals)} different colours, most of them at smoothed or compressed borders"
        if not modes:
            return DataError(
                f"the masks are RGB with {len(totals)} different colours",
                f"at most {MOST_PROPOSED} colours, one per class",
                "save the masks without smoothing and without JPEG",
            )
        totals = modes
    colors = [unpack_color(code) for code, _ in totals.most_common()]
    return DataError(
        f"the masks are RGB and {reason}",
        "a name for each colour",
        f"write {FILE_NAME} beside the masks' folder and change the names:\n"
        + class_file_text(names, colors, None),
    )


def _modes(totals: Counter[int]) -> Counter[int]:
    """Return the colours that are no mixture at a border; empty where the colours have no such order."""
    modes: Counter[int] = Counter()
    for code, number in totals.most_common():
        if number < _LEAST_OF_MODE * totals.total() or len(modes) == MOST_PROPOSED:
            break
        point = np.array(unpack_color(code))
        apart = all(np.abs(point - unpack_color(mode)).max() >= LEAST_APART for mode in modes)
        if apart and not _is_mixture(code, number, modes):
            modes[code] = number
    enough = len(modes) >= 2 and modes.total() >= _LEAST_AT_MODES * totals.total()
    return modes if enough else Counter()


def _is_mixture(code: int, number: int, modes: Counter[int]) -> bool:
    """Whether a colour lies between two far commoner ones, as at a smoothed border of theirs."""
    for first, second in itertools.combinations(modes, 2):
        start, end, point = (np.array(unpack_color(each), np.float64) for each in (first, second, code))
        place = np.clip((point - start) @ (end - start) / np.square(end - start).sum(), 0, 1)
        near = np.abs(start + place * (end - start) - point).max() < LEAST_APART / 2
        if near and number < _LEAST_OF_PARENTS * min(modes[first], modes[second]):
            return True
    return False


def indices_need_names(
    censuses: list[Census], used: list[int], ignored: list[int], colors: Mapping[int, Color]
) -> DataError:
    shown = ", ".join(map(str, used[:10])) + (f", ... {used[-1]}" if len(used) > 10 else "")
    if len(used) > MOST_PROPOSED:
        return DataError(
            f"the masks hold {len(used)} different values ({shown})",
            f"at most {MOST_CLASSES_UNNAMED} classes numbered from 0",
            "if these are object numbers, save masks of classes instead; "
            f"if they are classes, list them in {FILE_NAME}",
        )
    text = class_file_text(
        [f"class {value}" for value in used], [colors.get(v, default_color(v)) for v in used], used
    )
    ignore = f"ignore = {ignored[0]}\n\n" if ignored else ""
    return DataError(
        f"the masks hold the values {shown}, with gaps ({_rarest(censuses, used)})",
        "classes numbered from 0 without large gaps",
        f"write {FILE_NAME} beside the masks' folder and change the names:\n{ignore}{text}",
    )


def _rarest(censuses: list[Census], used: list[int]) -> str:
    """Say where the value is that is least likely to be a class."""
    totals = total_codes(censuses)
    value = min(used, key=lambda code: totals[code])
    first, *others = (census for census in censuses if value in census.pixels)
    number = f"{totals[value]} pixel{'s' if totals[value] > 1 else ''}"
    place = first.first_place(value)
    where = f", first at row {place[0]}, column {place[1]}" if place else ""
    more = f" and {len(others)} more" if others else ""
    return f"the rarest, {value}, in {number} of {first.name}{more}{where}"
