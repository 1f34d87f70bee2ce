"""What the numbers and colours in mask files mean: found out from all masks of a dataset together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from fullyconv.datasets._classfile import FILE_NAME, ClassFile, class_file_text
from fullyconv.datasets._encodings._codes import (
    Census,
    Encoding,
    is_gray,
    pack_color,
    total_codes,
    without_color,
)
from fullyconv.datasets._encodings._proposals import (
    MOST_CLASSES_UNNAMED,
    MOST_PROPOSED,
    colors_need_names,
    indices_need_names,
)
from fullyconv.errors import DataError
from fullyconv.labels import ClassTable, Color, default_color

# Between the two values of smoothed masks lie few pixels of many values, dark and bright ones.
_FEWEST_BETWEEN = 8
_LEAST_AT_ENDS = 0.8
_LEAST_BRIGHT = 0.2


def detect_encoding(censuses: list[Census], class_file: ClassFile | None) -> Encoding:
    """Find out what the masks mean; the first rule of ``ENCODINGS`` that applies says so.

    Raises
    ------
    DataError
        The masks cannot be understood alone; the fix holds a ``classes.toml`` to paste where one would help.
    """
    # Files that were compressed with loss are asked only where there are no others.
    censuses = [census for census in censuses if not census.lossy] or censuses
    # A stray RGB file among index masks is that file's fault, not the meaning of all.
    really = sum(c.colored and not all(is_gray(code) for code in c.pixels) for c in censuses)
    colored = really > 0 and really >= sum(not c.colored for c in censuses)
    if not colored:
        censuses = [without_color(census) for census in censuses]
    for rule in ENCODINGS:
        encoding = rule(censuses, class_file, colored)
        if encoding is not None:
            return encoding
    raise AssertionError("the last rule always answers")


def _by_class_file(censuses: list[Census], file: ClassFile | None, colored: bool) -> Encoding | None:
    if file is None:
        return None
    table = file.classes
    fix = f"correct the mask, or add it to {FILE_NAME} as a class or under ignore"
    ignored = dict.fromkeys(
        map(pack_color, file.ignored_colors) if colored else file.ignored, table.ignore_index
    )
    if colored:
        if not file.has_colors:
            names = table.names + tuple(f"class {k}" for k in range(len(table), MOST_PROPOSED))
            raise colors_need_names(censuses, f"{FILE_NAME} gives no colours", names)
        labels = {pack_color(color): k for k, color in enumerate(table.colors)}
        notes = (f"masks: RGB colours as in {FILE_NAME}",)
    elif file.indices is not None:
        labels = {index: k for k, index in enumerate(file.indices)}
        notes = (f"masks: values as in {FILE_NAME}",)
    elif len(table) == 2 and (high := _two_values(censuses)):
        labels, ignored = {0: 0, high: 1}, {}
        notes = (f"masks: two values, 0 ({table.names[0]}) and {high} ({table.names[1]})",)
    else:
        if not file.indices:
            _refuse_counting_from_one(censuses, file)
        labels = {k: k for k in range(len(table))}
        notes = (f"masks: values 0 to {len(table) - 1} in the order of {FILE_NAME}, which gives no index",)
    return Encoding(table, ignored | labels, colored, notes, fix)


def _refused_colors(censuses: list[Census], file: ClassFile | None, colored: bool) -> Encoding | None:
    if colored:
        names = ("background", *(f"class {k}" for k in range(1, MOST_PROPOSED)))
        raise colors_need_names(censuses, f"there is no {FILE_NAME}", names)
    return None


def _two_valued(censuses: list[Census], file: ClassFile | None, colored: bool) -> Encoding | None:
    high = _two_values(censuses)
    if not high or _palette_colors(censuses):
        return None
    return Encoding(
        ClassTable(("background", "foreground")),
        {0: 0, high: 1},
        colored=False,
        notes=(
            f"masks: two values, 0 (background) and {high} (foreground); to name them, write {FILE_NAME}",
        ),
        fix=f"save the mask with 0 and {high} only (no smoothing, nearest-neighbour resizing)",
    )


def _indices(censuses: list[Census], file: ClassFile | None, colored: bool) -> Encoding | None:
    totals = total_codes(censuses)
    values = sorted(code for code in totals if code >= 0)
    ignored = values[-1:] if len(values) > 1 and values[-1] in (255, 65535) else []
    used = values[: len(values) - len(ignored)]
    colors = _palette_colors(censuses)
    count = used[-1] + 1 if used else 0
    if count < 2:
        raise DataError(
            f"every mask holds only the value {used[0] if used else 'none'}",
            "at least two classes",
            f"check that the masks are the right files; name the classes in {FILE_NAME} if they are",
        )
    if count > MOST_CLASSES_UNNAMED or 2 * len(used) < count:
        raise indices_need_names(censuses, used, ignored, colors)
    table = ClassTable.of(count)
    if colors:
        table = ClassTable(table.names, tuple(colors.get(k, default_color(k)) for k in range(count)))
    notes = [f"masks: values 0 to {count - 1}{' with a palette' if colors else ''}; names: {FILE_NAME}"]
    if ignored:
        notes.append(f"masks: value {ignored[0]} is ignored")
    labels = {k: k for k in range(count)} | dict.fromkeys(ignored, table.ignore_index)
    fix = f"correct the mask, or name the classes in {FILE_NAME}"
    return Encoding(table, labels, False, tuple(notes), fix)


def _two_values(censuses: list[Census]) -> int:
    """Return the upper of two values (255 or 65535) if the masks are two-valued but for strays, else 0."""
    for high in (255, 65535):
        plain = sum(high in c.pixels and c.pixels.keys() <= {0, high} for c in censuses)
        other = sum(not c.pixels.keys() <= {0, high} for c in censuses)
        if plain > other:
            return high
    return 255 if _is_smoothed(total_codes(censuses)) else 0


def _is_smoothed(totals: Counter[int]) -> bool:
    """Whether these are the codes of two-valued masks, 0 and 255, with smoothed or compressed borders."""
    between = {code: number for code, number in totals.items() if 0 < code < 255}
    bright = sum(number for code, number in between.items() if code >= 128)
    return (
        between.keys() | {0, 255} >= totals.keys()
        and len(between) >= _FEWEST_BETWEEN
        and totals[0] + totals[255] >= _LEAST_AT_ENDS * totals.total()
        and totals[255] > max(between.values())
        and bright >= _LEAST_BRIGHT * sum(between.values())
    )


def _refuse_counting_from_one(censuses: list[Census], file: ClassFile) -> None:
    """Refuse masks of 1 to K beside K names: each class would get the name of the next one."""
    names = file.classes.names
    used = sorted(total_codes(censuses).keys() - set(file.ignored))
    if used and used[0] == 1 and used[-1] == len(names):
        colors = file.classes.colors
        raise DataError(
            f"the masks hold the values 1 to {len(names)} and no 0, {FILE_NAME} names {len(names)} classes "
            "counted from 0",
            f"the values 0 to {len(names) - 1}, or an index for each class",
            f"write the indices into {FILE_NAME}:\n"
            + class_file_text(names, colors, range(1, len(names) + 1)),
        )


def _palette_colors(censuses: list[Census]) -> dict[int, Color]:
    """Return the palette colours of the values in use; empty where there are none or only grey ones.

    Raises
    ------
    DataError
        Two files paint the same value in different colours, so a value has no one meaning.
    """
    found: dict[int, tuple[Color, str]] = {}
    for census in censuses:
        for code in census.pixels:
            if census.palette is not None and 0 <= code < len(census.palette):
                color, first = found.setdefault(code, (census.palette[code], census.name))
                if color != census.palette[code]:
                    raise DataError(
                        f"value {code} is {color} in the palette of {first} but "
                        f"{census.palette[code]} in that of {census.name}",
                        "one palette for all masks",
                        f"convert the masks to RGB and write a {FILE_NAME} with the colours",
                    )
    colors = {code: color for code, (color, _) in found.items()}
    return {} if all(is_gray(pack_color(color)) for color in colors.values()) else colors


# In this order: what the user wrote first, then the narrowest reading. Each takes the census of every mask,
# the class file if there is one, and whether the codes are colours; it answers, passes (None), or refuses.
ENCODINGS: tuple[Callable[[list[Census], ClassFile | None, bool], Encoding | None], ...] = (
    _by_class_file,
    _refused_colors,
    _two_valued,
    _indices,
)
