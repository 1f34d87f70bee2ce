"""Tab completes the command line: each shell's script is valid, and bash's completes for real."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fullyconv import cli, commands

PLACES = {
    "bash": (".local/share/bash-completion/completions/fullyconv", ".bashrc"),
    "zsh": (".zsh/completions/_cyclopts_fullyconv", ".zshrc"),
    "fish": (".config/fish/completions/fullyconv.fish", None),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ZSH", "ZSH_CUSTOM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def install(shell: str, home: Path) -> Path:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--install-completion", "--shell", shell])
    assert not caught.value.code
    return home / PLACES[shell][0]


@pytest.mark.parametrize("shell", PLACES)
def test_a_script_is_written_where_the_shell_looks(
    shell: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = install(shell, home)
    assert str(script) in capsys.readouterr().out
    text = script.read_text("utf-8")
    assert all(verb.__name__.rpartition("_")[2] in text for verb in commands.VERBS)
    assert all(word in text for word in ("overwrite", "torch-export"))
    started = PLACES[shell][1]
    assert started is None or str(script.parent) in (home / started).read_text("utf-8")


@pytest.mark.parametrize("shell", PLACES)
def test_the_shell_can_read_its_script(shell: str, home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    subprocess.run([shell, "-n", str(install(shell, home))], check=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pre"], {"predict"}),
        (["ex"], {"explain", "export"}),
        (["explain", "geo"], {"geometry"}),
        (["export", "--over"], {"--overwrite"}),
        (["export", "m.safetensors", "--to", "o"], {"onnx", "openvino"}),
    ],
)
def test_bash_completes(words: list[str], expected: set[str], home: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash on this machine")
    line = " ".join(["fullyconv", *words])
    program = f"""
        source {install("bash", home)}
        compopt() {{ :; }}
        COMP_WORDS=({line}); COMP_CWORD={len(words)}; COMP_LINE="{line}"; COMP_POINT={len(line)}
        _fullyconv
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) == expected, done.stderr
