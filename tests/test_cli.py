import inspect
import json
import subprocess
import sys

import pytest

from fullyconv import cli, commands
from fullyconv.errors import ConfigError, FullyconvError, MachineError
from fullyconv.metrics import ConfusionMatrix

VERBS = [command.__name__.replace("_", " ") for command in commands.VERBS]


def run(capsys, *arguments):
    """Run the command line in this process; return exit code, standard output and standard error."""
    try:
        cli.main(arguments)
        code = 0
    except SystemExit as exit_:
        code = exit_.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb, capsys):
    code, out, _ = run(capsys, *verb.split(), "--help")
    assert code == 0
    assert f"fullyconv {verb}" in out.partition("Example")[2]
    assert "--json" in out
    assert "progress" not in out.replace("its progress", "")


@pytest.mark.parametrize("command", commands.VERBS, ids=VERBS)
def test_every_option_is_documented(command):
    documented = inspect.getdoc(command) or ""
    for name in inspect.signature(command).parameters:
        assert name == "progress" or f"\n{name}\n    " in documented, name


def test_help_loads_nothing_heavy():
    program = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from fullyconv.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["predict"], ["train", "data", "--epochs", "many", "--out", "x"]]
)
def test_what_cannot_be_parsed_exits_with_2(arguments, capsys):
    code, _, _ = run(capsys, *arguments)
    assert code == 2


@pytest.mark.parametrize(("error", "code"), [(ConfigError, 2), (MachineError, 3), (FullyconvError, 1)])
def test_an_error_is_one_message_and_its_exit_code(error, code, capsys, monkeypatch):
    def broken(*_, **__):
        raise error("a disk of 0 bytes", "some room", "buy one")

    monkeypatch.setattr(cli, "app", broken)
    got, out, err = run(capsys)
    assert (got, out) == (code, "")
    assert err == "fullyconv: a disk of 0 bytes; expected some room. To fix: buy one\n"


def test_a_reader_that_has_enough_is_no_error():
    program = (
        "import sys; from fullyconv import cli\n"
        "cli.app = lambda *_, **__: print('x' * 10**6, flush=True)\n"
        "cli.main([])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as done:
        done.stdout.close()
        assert done.stderr.read() == b""
        assert done.wait() == 0


def test_results_print_as_text_or_json(capsys):
    class Result:
        def to_dict(self):
            return ConfusionMatrix(2).scores().to_dict()

        def __str__(self):
            return "as text"

    def command(*, seed: int = 0):
        return Result()

    cli._verb(command)()
    assert capsys.readouterr().out == "as text\n"
    cli._verb(command)(as_json=True)
    assert json.loads(capsys.readouterr().out)["class_iu"] == [None, None]
