"""Every block of README and docs runs, and the reference says all that is exported.

What a page may rely on, in a folder of its own:

- ``data/``: images/ and masks/ of bright discs on noise, two classes, 12 RGB images of varying sizes;
- ``new/``: two images without masks;
- ``model.safetensors``: a small U-Net for such images.

Blocks marked ``python`` run one after the other in one namespace per page. Of blocks marked ``shell``, lines
that begin with ``fullyconv`` run, with training made short (``SHORT``). What cannot run, such as printed
output, commands of other programs, or work of many minutes, is marked ``text``.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import fullyconv as fc
from fullyconv import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = {"python", "shell"}
SHOWN = {"text", "console", "json", "toml"}

# What makes training short, and what it replaces, so that a page may say what a reader wants.
SHORT = ["--epochs", "1", "--crop", "64", "--batch", "2", "--widths", "4", "--widths", "8"]
LONG = {"--minutes", "--epochs", "--crop", "--batch", "--widths"}

# What is not for importing: the command line and the program it starts.
APPLICATION = {"__init__", "__main__", "cli", "commands", "demo", "terminal"}


class Block(NamedTuple):
    line: int
    language: str
    text: str


def blocks(markdown: str) -> Iterator[Block]:
    """Yield fenced blocks, also those indented in lists and admonitions."""
    fence = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
    for found in fence.finditer(markdown):
        lines = [line.removeprefix(found[1]) for line in found[3].splitlines()]
        yield Block(markdown.count("\n", 0, found.start()) + 1, found[2], "\n".join(lines) + "\n")


def shortened(arguments: list[str]) -> list[str]:
    """Replace the options that make training long."""
    if arguments[0] != "train":
        return arguments
    kept = [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if word not in LONG and before not in LONG
    ]
    return kept + SHORT


def commands_of(block: Block) -> Iterator[list[str]]:
    """Yield the arguments of each line that begins with ``fullyconv``; lines may go on after a backslash."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["fullyconv"]:
            special = {"|", ">", ">>", "<", "&&", "||", ";", "&"} & set(words)
            assert not special, f"only plain commands run here, not {special}: {line}"
            yield words[1:]


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def reader(tmp_path: Path, made_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder a reader of a page works in."""
    shutil.copytree(made_data, tmp_path / "data")
    (tmp_path / "new").mkdir()
    for image in sorted((made_data / "images").iterdir())[:2]:
        shutil.copy(image, tmp_path / "new" / f"new-{image.name}")
    fc.save(fc.UNet(("background", "disc"), widths=(4, 8)), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built strictly: any link to nowhere and any unknown name is an error."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for part in ("docs", "src"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def described(site: Path) -> set[str]:
    """Every name that has a place in the reference, from the inventory that Sphinx's format keeps of them."""
    *_, packed = (site / "objects.inv").read_bytes().split(b"\n", 4)
    return {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}


def public_names() -> set[str]:
    """Every name that can be imported and is meant to be: of each module, and of the package itself."""
    names = set()
    for path in sorted((ROOT / "src" / "fullyconv").iterdir()):
        module = path.stem
        if module in APPLICATION or module.startswith("_") or not (path.is_dir() or path.suffix == ".py"):
            continue
        loaded = import_module(f"fullyconv.{module}")
        own = [
            name
            for name, value in vars(loaded).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == loaded.__name__
        ]
        names |= {f"fullyconv.{module}.{name}" for name in getattr(loaded, "__all__", own)}
    names |= {f"fullyconv.{fc._HOME[name]}.{name}" for name in fc.__all__ if name in fc._HOME}
    return names


def test_the_reference_is_complete(site: Path) -> None:
    missing = public_names() - described(site)
    assert not missing, f"add these to a page in docs/reference: {sorted(missing)}"


def test_the_site_needs_no_other_host(site: Path) -> None:
    """No script, font, style or picture comes from elsewhere, so nothing learns who reads."""
    elsewhere = re.compile(r"<(?:script|img|link)[^>]+(?:src|href)=\"?(https?://[^\s\">]+)")
    for page in site.rglob("*.html"):
        loaded = elsewhere.findall(page.read_text("utf-8"))
        assert not loaded, f"{page.relative_to(site)} loads {loaded}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_blocks_are_marked(page: Path) -> None:
    for block in blocks(page.read_text("utf-8")):
        assert block.language in RUN | SHOWN, (
            f"{page_name(page)}:{block.line}: a block marked {block.language!r}; "
            f"mark it python or shell (it is run), or {', '.join(sorted(SHOWN))} (it is only shown)"
        )


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.language in RUN for block in blocks(page.read_text("utf-8")))],
    ids=page_name,
)
def test_blocks_run(page: Path, reader: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page.read_text("utf-8")):
        where = f"{page_name(page)}:{block.line}"
        if block.language == "python":
            # Empty lines bring the line numbers of a traceback to those of the page.
            exec(compile("\n" * block.line + block.text, where, "exec"), namespace)
        elif block.language == "shell":
            for arguments in commands_of(block):
                assert exit_code(arguments) == 0, f"{where}: fullyconv {' '.join(arguments)} fails"


def exit_code(arguments: list[str]) -> int | str | None:
    try:
        cli.main(shortened(arguments))
    except SystemExit as exit_:
        return exit_.code or 0
    return 0


def test_the_command_line_s_reference_is_what_the_commands_say(monkeypatch: pytest.MonkeyPatch) -> None:
    # A program started by "python -m" has that in the usage that cyclopts writes.
    monkeypatch.setattr(sys, "orig_argv", ["fullyconv"])
    monkeypatch.setattr(sys, "argv", ["fullyconv"])
    written = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
    assert written.strip() == cli.app.generate_docs(output_format="markdown").strip(), "run: make reference"


def test_blocks_are_found_and_cut_rightly() -> None:
    """What finds and cuts the blocks is itself right."""
    text = (
        "a\n\n```python\nx = 1\n```\n\n- b\n\n    ```shell\n    fullyconv doctor  # why\n    make\n    ```\n"
    )
    found = list(blocks(text))
    assert found == [
        Block(3, "python", "x = 1\n"),
        Block(9, "shell", "fullyconv doctor  # why\nmake\n"),
    ]
    assert list(commands_of(found[1])) == [["doctor"]]
    with pytest.raises(AssertionError, match="only plain commands"):
        list(commands_of(Block(1, "shell", "fullyconv doctor > file\n")))
    trained = shortened(["train", "data", "--minutes", "20", "--out", "runs/a"])
    assert trained == ["train", "data", "--out", "runs/a", *SHORT]
    assert shortened(["predict", "--minutes", "2"]) == ["predict", "--minutes", "2"]
