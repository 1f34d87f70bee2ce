import ast
import subprocess
import sys
from pathlib import Path

import fullyconv


def test_every_public_name_is_there_and_typed():
    for name in fullyconv.__all__:
        assert getattr(fullyconv, name) is not None
    tree = ast.parse(Path(fullyconv.__file__).read_text(encoding="utf-8"))
    typed = {
        (alias.name, (node.module or "").removeprefix("fullyconv."))
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fullyconv.")
        for alias in node.names
    }
    assert typed == set(fullyconv._HOME.items())


def test_importing_the_package_loads_nothing_heavy():
    program = "import sys, fullyconv; print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(fullyconv, "nothing_of_the_kind")
