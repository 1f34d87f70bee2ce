"""Recipes: what a run was told, as a strict TOML file that runs it again."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from fullyconv.datasets import AUGMENTATIONS, AugmentConfig
from fullyconv.errors import ConfigError
from fullyconv.images import atomic_file
from fullyconv.training.config import TrainConfig

NAME = "recipe.toml"
# KEY=text without quotes, which shells take away; what TOML knows by itself stays as it is.
_BARE_TEXT = re.compile(
    r"""\A\s*([\w.]+)\s*=\s*(?!(?:true|false|inf|nan)\s*$)([A-Za-z][^"'\\\[\]{}#,\n]*?)\s*$"""
)

_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Recipe:
    """What is trained on, and how.

    Parameters
    ----------
    config
        Every option.
    data
        The folder of images and masks.
    classes
        Its ``classes.toml``, where that is not in the folder.
    """

    config: TrainConfig
    data: Path | None = None
    classes: Path | None = None


def read_recipe(path: str | Path, settings: Iterable[str] = ()) -> Recipe:
    """Read a recipe, and change what ``settings`` say.

    Keys are the fields of `TrainConfig`, ``data`` and ``classes``. A table ``[augment]`` has the fields of
    `AugmentConfig`; what it leaves out is as in ``variation``. Paths count from the file's folder.

    Parameters
    ----------
    path
        The TOML file.
    settings
        Lines of TOML such as ``"augment.rotation = 10"``; text needs no quotes.

    Raises
    ------
    ConfigError
        The file is no TOML, or a key or a value is none that is known.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{path}: {error}", "a recipe in TOML", f"see the {NAME} that every run leaves in its folder"
        ) from error
    places = {name: path.parent / content.pop(name) for name in ("data", "classes") if name in content}
    return Recipe(parse_config(content, settings, str(path)), **places)


def parse_config(
    content: Mapping[str, Any], settings: Iterable[str] = (), source: str = "--set"
) -> TrainConfig:
    """Return the options that a recipe's content and further lines of TOML say.

    Raises
    ------
    ConfigError
        A key or a value is none that is known; the nearest name is given.
    """
    content = dict(content)
    for line in settings:
        try:
            _merge(content, tomllib.loads(_BARE_TEXT.sub(r'\1="\2"', line, count=1)))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(
                f"--set {line!r}: {error}", "KEY=VALUE as in TOML", "such as --set augment.rotation=10"
            ) from error
    augment = content.pop("augment", None)
    _refuse_unknown(content, TrainConfig, source, "")
    config = _typed(TrainConfig, content, source)
    if augment is None:
        return config
    if not isinstance(augment, dict):
        raise ConfigError(
            f"{source}: augment = {augment!r}", "a table", "write [augment], and its keys below"
        )
    _refuse_unknown(augment, AugmentConfig, source, "augment.")
    if config.variation not in AUGMENTATIONS:
        raise ConfigError(
            f"variation {config.variation!r}", f"one of {', '.join(AUGMENTATIONS)}", "choose one of them"
        )
    usual = asdict(AUGMENTATIONS[config.variation]((config.crop, config.crop)))
    return replace(config, augment=_typed(AugmentConfig, usual | augment, f"{source}, [augment]"))


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe that `read_recipe` reads back as the same."""
    content = {"data": recipe.data, "classes": recipe.classes, **asdict(recipe.config)}
    augment = content.pop("augment")
    lines = ["# fullyconv train --recipe THIS_FILE --out runs/again", *_lines(content)]
    if augment is not None:
        lines += ["", "[augment]", *_lines(augment)]
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(content: Mapping[str, Any]) -> Iterable[str]:
    for name, value in content.items():
        if value is not None:  # TOML has no null: what is not there is chosen
            plain = str(Path(value).absolute()) if isinstance(value, Path) else value
            # Strings, numbers, truth and lists are spelled alike in JSON and TOML; DEL alone is not.
            yield f"{name} = {json.dumps(plain, ensure_ascii=False)}".replace("\x7f", "\\u007f")


def _merge(content: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, dict):
            inner = content.get(name)
            content[name] = dict(inner) if isinstance(inner, dict) else {}
            _merge(content[name], value)
        else:
            content[name] = value


def _refuse_unknown(content: Mapping[str, Any], kind: type[Any], source: str, prefix: str) -> None:
    known = [field.name for field in fields(kind)]
    for name in content:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0)[0]
            raise ConfigError(
                f"{source}: {prefix}{name}", "a key that is known", f"did you mean {prefix}{near}?"
            )


def _typed(kind: type[_Kind], content: Mapping[str, Any], source: str) -> _Kind:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(str(part) for part in wrong["loc"][:1])
        raise ConfigError(f"{source}: {name} = {wrong['input']!r}", wrong["msg"], "correct it") from error
