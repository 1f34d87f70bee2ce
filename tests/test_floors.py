"""Imports only go down: each module has a floor, and nothing imports from above or in a circle.

Imports inside functions and under ``TYPE_CHECKING`` count like any other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "fullyconv"

FLOORS = {
    "errors": 0,
    "geometry": 0,
    "hardware": 0,
    "labels": 0,
    "progress": 0,
    "doctor": 1,
    "images": 1,
    "metrics": 1,
    "outlines": 1,
    "terminal": 1,
    "backbones": 2,
    "losses": 2,
    "receptive_fields": 2,
    "surgery": 2,
    "upsampling": 2,
    "datasets": 3,
    "engines": 3,
    "models": 3,
    "classifiers": 4,
    "explanation": 4,
    "hub": 4,
    "exports": 4,
    "inference": 4,
    "evaluation": 5,
    "training": 5,  # it scores on the way, to keep the best model
    "__init__": 6,
    "demo": 6,
    "reports": 6,
    "server": 6,
    "commands": 7,
    "cli": 8,
    "__main__": 9,
}

LIGHT = (
    "errors",
    "geometry",
    "hardware",
    "labels",
    "metrics",
    "progress",
    "terminal",
)  # must never pull in torch


def module_name(file: Path, source: Path) -> str:
    """``images/_png.py`` -> ``images._png``; ``images/__init__.py`` -> ``images``."""
    parts = file.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def unit(module: str) -> str:
    return module.partition(".")[0]


def imported_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything a file imports, members included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full, not with dots"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


class Imports:
    """Who imports what in a source tree: ``inside[module]`` and ``outside[module]`` with lines."""

    def __init__(self, source: Path) -> None:
        files = {module_name(file, source): file for file in sorted(source.rglob("*.py"))}
        self.inside: dict[str, dict[str, int]] = {module: {} for module in files}
        self.outside: dict[str, dict[str, int]] = {module: {} for module in files}
        for module, file in files.items():
            for line, name in imported_names(ast.parse(file.read_text(encoding="utf-8"))):
                package, _, rest = name.partition(".")
                if package != "fullyconv":
                    self.outside[module].setdefault(package, line)
                elif rest != "__version__":
                    self.inside[module].setdefault(self._longest_module(rest, files), line)

    @staticmethod
    def _longest_module(name: str, files: dict[str, Path]) -> str:
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name or "__init__"

    def reachable(self, module: str) -> set[str]:
        found: set[str] = set()
        waiting = [module]
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting.extend(self.inside[current])
        return found


def violations(imports: Imports) -> list[str]:
    """Every import that goes up, reaches into another unit's private file, or closes a circle."""
    problems = []
    units: dict[str, set[str]] = {}
    for module, targets in imports.inside.items():
        here = unit(module)
        units.setdefault(here, set())
        for target, line in targets.items():
            there = unit(target)
            if here == there:
                continue
            units[here].add(there)
            if FLOORS[there] > FLOORS[here]:
                problems.append(f"{module}:{line} imports {target} from floor {FLOORS[there]}, above its own")
            if any(part.startswith("_") for part in target.split(".")[1:]):
                problems.append(f"{module}:{line} imports {target}, private to {there}")
    for name, graph in (("modules", imports.inside), ("units", units)):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            problems.append(f"{name} import each other in a circle: {' -> '.join(error.args[1])}")
    return problems


@pytest.fixture(scope="module")
def imports() -> Imports:
    return Imports(SOURCE)


def test_every_module_has_a_floor(imports: Imports) -> None:
    homeless = sorted({unit(module) for module in imports.inside} - FLOORS.keys())
    assert not homeless, f"give these a floor in FLOORS and in docs/explanation/architecture.md: {homeless}"


def test_imports_only_go_down_and_in_no_circle(imports: Imports) -> None:
    assert violations(imports) == []


def test_light_modules_never_reach_torch(imports: Imports) -> None:
    for light in (module for module in imports.inside if unit(module) in LIGHT):
        for module in imports.reachable(light):
            heavy = imports.outside[module].keys() & {"torch", "torchvision", "timm", "openvino"}
            assert not heavy, f"{light} reaches {heavy} through {module}"


def test_light_modules_import_without_torch(imports: Imports) -> None:
    names = sorted({unit(module) for module in imports.inside} & set(LIGHT))
    code = "import sys\n" + "".join(f"import fullyconv.{name}\n" for name in names)
    assert modules_loaded_by([sys.executable, "-c", code + "print(*sys.modules)"]).isdisjoint(
        {"torch", "scipy", "timm"}
    )


def test_asking_for_help_loads_nothing_heavy() -> None:
    code = (
        "import contextlib, io, sys\n"
        "from fullyconv.cli import main\n"
        "sys.argv = ['fullyconv', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main()\n"
        "print(*sys.modules)"
    )
    loaded = modules_loaded_by([sys.executable, "-c", code])
    assert "fullyconv.commands" in loaded
    assert loaded.isdisjoint({"torch", "torchvision", "timm", "scipy", "openvino", "sklearn", "matplotlib"})


def modules_loaded_by(command: list[str]) -> set[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"labels.py": "import fullyconv.models\n", "models/__init__.py": ""}, "above its own"),
        ({"labels.py": "def f():\n    from fullyconv import models\n", "models.py": ""}, "above its own"),
        ({"labels.py": "from fullyconv.models import load\n", "models.py": ""}, "above its own"),
        ({"labels.py": "from fullyconv import convolutionalize\n", "__init__.py": ""}, "above its own"),
        ({"losses.py": "import fullyconv.surgery\n", "surgery.py": "import fullyconv.losses\n"}, "circle"),
        (
            {
                "models/__init__.py": "from fullyconv.models._unet import UNet\n",
                "models/_unet.py": "from fullyconv.models import load\n",
            },
            "modules import each other in a circle",
        ),
        (
            {
                "surgery/__init__.py": "",
                "surgery/_a.py": "import fullyconv.losses\n",
                "surgery/_b.py": "",
                "losses/__init__.py": "",
                "losses/_a.py": "import fullyconv.surgery\n",
            },
            "units import each other in a circle",
        ),
        (
            {"models.py": "from fullyconv.images._png import read\n", "images/_png.py": "",
             "images/__init__.py": ""},
            "private to images",
        ),
    ],
)  # fmt: skip
def test_the_check_itself_sees(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert any(complaint in problem for problem in violations(Imports(tmp_path)))


def test_downward_and_version_imports_pass(tmp_path: Path) -> None:
    (tmp_path / "labels.py").write_text("import numpy\n")
    (tmp_path / "__init__.py").write_text("from fullyconv.labels import ClassTable\n")
    (tmp_path / "models.py").write_text("from fullyconv import __version__, labels\n")
    assert violations(Imports(tmp_path)) == []
