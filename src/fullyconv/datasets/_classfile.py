"""``classes.toml``: the file beside images and masks that names the classes and says how masks spell them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullyconv.datasets._samples import counted
from fullyconv.errors import ConfigError, DataError
from fullyconv.labels import ClassTable, Color

FILE_NAME = "classes.toml"

_EXAMPLE = 'ignore = 255\n\n[[class]]\nname = "background"\ncolor = [0, 0, 0]\nindex = 0\n'


@dataclass(frozen=True)
class ClassFile:
    """What a ``classes.toml`` says.

    Parameters
    ----------
    classes
        Names and colours, in the order of the file; the position is the label.
    indices
        The value of each class in index masks, or None where the file gives none.
    ignored
        Values of index masks that take no part.
    ignored_colors
        Colours of RGB masks that take no part.
    has_colors
        Whether the file gives the colours (otherwise they are the default ones, unfit for decoding).
    """

    classes: ClassTable
    indices: tuple[int, ...] | None
    ignored: tuple[int, ...]
    ignored_colors: tuple[Color, ...]
    has_colors: bool


def read_class_file(path: Path) -> ClassFile:
    """Read and check a ``classes.toml``.

    Raises
    ------
    DataError
        The file is no TOML, or holds an unknown key or a value of the wrong type; every problem is listed.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise DataError(
            f"{path}: {error}", "a TOML file of classes", f"write it like this:\n{_EXAMPLE}"
        ) from error
    problems = [*_unknown_keys(content, ("class", "ignore"), "")]
    entries = content.get("class")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        problems.append("it holds no list of classes; fix: begin each class with a line [[class]]")
        entries = []
    for number, entry in enumerate(entries):
        problems += _entry_problems(entry, f"class {number + 1}: ")
    for key in ("color", "index"):
        if 0 < sum(key in entry for entry in entries) < len(entries):
            problems.append(f"only some classes have {key!r}; fix: give it to all of them or to none")
        given = [str(entry[key]) for entry in entries if key in entry]
        problems += [
            f"{key} = {value} is used twice; fix: give each class its own"
            for value in sorted(set(given))
            if given.count(value) > 1
        ]
    ignore = content.get("ignore", 255)
    if not (_is_value(ignore) or _is_list(ignore, _is_value) or _is_list(ignore, _is_color)):
        problems.append(
            f"ignore = {ignore!r} is no mask value; fix: write a number, a list of numbers, or a colour"
        )
    if problems:
        raise _refusal(path, problems)
    try:
        return _assemble(entries, ignore, default_ignore="ignore" not in content)
    except ConfigError as error:
        raise _refusal(path, [f"{error.given}; fix: {error.fix}"]) from error


def class_file_text(names: Iterable[str], colors: Iterable[Color], indices: Iterable[int] | None) -> str:
    """Write the text of a ``classes.toml``, to propose one."""
    numbers = indices if indices is not None else (None for _ in iter(int, 1))
    blocks = []
    for name, color, index in zip(names, colors, numbers, strict=False):
        block = f'[[class]]\nname = "{name}"\ncolor = {list(color)}\n'
        blocks.append(block if index is None else f"{block}index = {index}\n")
    return "\n".join(blocks)


def _assemble(entries: list[dict[str, Any]], ignore: Any, *, default_ignore: bool) -> ClassFile:
    has_colors = "color" in entries[0] if entries else False
    names = tuple(str(entry["name"]) for entry in entries)
    colors = tuple(tuple(entry["color"]) for entry in entries) if has_colors else ()
    indices = tuple(int(entry["index"]) for entry in entries) if entries and "index" in entries[0] else None
    ignored, ignored_colors = _ignored(ignore)
    taken = indices if indices is not None else tuple(range(len(names)))
    if default_ignore:
        ignored = tuple(value for value in ignored if value not in taken)
    # `ignore = [0, 0, 0]` beside colours is black, not three times class 0.
    clashes = [] if ignored_colors and has_colors else sorted(set(ignored) & set(taken))
    if clashes:
        raise ConfigError(
            f"ignore = {clashes[0]} is also the index of class {names[taken.index(clashes[0])]!r}",
            "one meaning per value",
            "ignore another value, or drop that class",
        )
    table = ClassTable(names, colors, ignore_index=255 if len(names) <= 255 else 65535)
    return ClassFile(table, indices, ignored, ignored_colors, has_colors)


def _ignored(ignore: Any) -> tuple[tuple[int, ...], tuple[Color, ...]]:
    if _is_value(ignore):
        return (ignore,), ()
    if ignore and _is_list(ignore, _is_color):
        return (), tuple((red, green, blue) for red, green, blue in ignore)
    # Three numbers may be three values or one colour: the masks tell which, so both readings are kept.
    color = ((ignore[0], ignore[1], ignore[2]),) if _is_color(ignore) else ()
    return tuple(ignore), color


def _entry_problems(entry: Mapping[str, Any], where: str) -> Iterable[str]:
    yield from _unknown_keys(entry, ("name", "color", "index"), where)
    if not isinstance(entry.get("name"), str) or not entry["name"]:
        yield f'{where}it has no name; fix: add name = "..."'
    if "color" in entry and not _is_color(entry["color"]):
        yield f"{where}color = {entry['color']!r}; fix: write three numbers of 0 to 255, as [230, 159, 0]"
    if "index" in entry and not _is_value(entry["index"]):
        yield f"{where}index = {entry['index']!r}; fix: write the class's value in the mask files, 0 to 65535"


def _unknown_keys(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> Iterable[str]:
    for key in table:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            fix = f"did you mean {nearest[0]!r}?" if nearest else f"the known keys are {', '.join(known)}"
            yield f"{where}unknown key {key!r}; fix: {fix}"


def _refusal(path: Path, problems: list[str]) -> DataError:
    return DataError(
        f"{path}: {counted(len(problems), 'problem')}",
        "a table of classes",
        "change the lines below",
        tuple(f"{path.name}: {problem}" for problem in problems),
    )


def _is_value(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535


def _is_color(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_value(v) and v <= 255 for v in value)


def _is_list(value: object, test: Any) -> bool:
    return isinstance(value, list) and all(test(item) for item in value)
