"""Steps are compiled where that pays, what was chosen is said and kept, and the choice survives a break."""

import shutil

import pytest
import torch
from torch import nn

from fullyconv.datasets import AugmentConfig
from fullyconv.errors import MachineError
from fullyconv.models import UNet, load
from fullyconv.progress import Quiet
from fullyconv.training import TrainConfig, read_recipe, resume, train
from fullyconv.training import compilation as compilation_module
from fullyconv.training import learner as learner_module
from fullyconv.training.compilation import choose_compilation, missing_compiler

CPU = torch.device("cpu")
SHORT = TrainConfig(
    steps=2, widths=(4, 4), batch=2, precision="f32", workers=0, augment=AugmentConfig(crop=(32, 32))
)


class Heard(Quiet):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def trials(eager, compiled, compiling):
    """Trials that take the seconds said."""

    class Trial:
        def __init__(self, model, crop, device, precision, *, compiled=False):
            self.compiled, self.steps = compiled, 0

        def step(self):
            self.steps += 1
            if self.compiled and isinstance(compiling, Exception):
                raise compiling
            if self.compiled:
                return compiling if self.steps == 1 else compiled
            return eager

    return Trial


def choose(monkeypatch, trial, *, lacking=None, steps=None, seconds=None):
    monkeypatch.setattr(compilation_module, "Trial", trial)
    monkeypatch.setattr(compilation_module, "missing_compiler", lambda device: lacking)
    heard = Heard()
    options = {"steps": steps, "seconds": seconds}
    choice = choose_compilation(UNet(2, widths=(4, 4)), (16, 16), 8, "f32", CPU, heard, **options)
    (line,) = heard.lines
    assert line.startswith(f"compiling: {choice}")
    assert line.endswith("(--set compile)")
    return choice, line


def test_a_long_run_that_gains_is_compiled(monkeypatch):
    choice, line = choose(monkeypatch, trials(1.0, 0.5, 90.0), seconds=20_000.0)
    assert choice == "on"
    assert "eager 1000 ms, compiled 500 ms, and 90 s to compile" in line


@pytest.mark.parametrize(
    ("trial", "length", "why"),
    [
        (trials(1.0, 0.97, 90.0), {"seconds": 20_000.0}, "compiled 970 ms"),  # gains too little
        (trials(1.0, 0.8, 4000.0), {"seconds": 15_000.0}, "4000 s to compile"),  # gains 3000
        (trials(0.01, 0.005, 9.0), {"steps": 100}, "less than 240 minutes"),
        (trials(1.0, 0.5, 9.0), {"steps": 10**6, "seconds": 3600.0}, "less than 240 minutes"),
        (trials(1.0, 0.5, RuntimeError("no such file: omp.h\nmore")), {"seconds": 20_000.0}, "omp.h"),
    ],
)
def test_a_run_that_does_not_gain_is_not(monkeypatch, trial, length, why):
    choice, line = choose(monkeypatch, trial, **length)
    assert choice == "off"
    assert why in line
    assert "\n" not in line


def test_without_a_compiler_steps_stay_as_they_are_and_that_is_said(monkeypatch):
    choice, line = choose(monkeypatch, trials(1.0, 0.1, 1.0), lacking="no g++", seconds=20_000.0)
    assert choice == "off"
    assert "no g++" in line


def test_a_missing_compiler_is_named(monkeypatch):
    from torch._inductor import cpp_builder

    def none():
        raise RuntimeError("No working C++ compiler found\nin PATH")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    assert missing_compiler(CPU) == "No working C++ compiler found"
    assert "mps" in missing_compiler(torch.device("mps"))


def test_what_was_chosen_is_kept_and_holds_after_a_break(made_data, tmp_path, monkeypatch):
    made = []

    def compiled(network, device):
        made.append(device)
        return Passing(network)

    class Passing(nn.Module):  # what computes is not the network itself, as with torch.compile
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, images):
            return self.network(images)

    monkeypatch.setattr(learner_module, "compiled", compiled)
    weights = []
    for choice in ("off", "on"):
        out = tmp_path / choice
        train(None, made_data, out=out, config=SHORT.replace(compile=choice), progress=Quiet())
        weights.append(load(out / "model.safetensors").state_dict())
        assert read_recipe(out / "recipe.toml").config.compile == choice
    assert len(made) == 1
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for file in (tmp_path / "on" / "checkpoints").glob("0*"):
        file.unlink()
    (tmp_path / "on" / "model.safetensors").unlink()
    resume(tmp_path / "on", progress=Quiet())
    assert len(made) == 2
    again = load(tmp_path / "on" / "model.safetensors").state_dict()
    assert all(torch.equal(weights[0][name], again[name]) for name in again)


def test_steps_that_must_be_compiled_need_a_compiler(made_data, tmp_path, monkeypatch):
    monkeypatch.setattr(compilation_module, "missing_compiler", lambda device: "no g++")
    with pytest.raises(MachineError, match="no g\\+\\+"):
        train(None, made_data, out=tmp_path / "run", config=SHORT.replace(compile="on"), progress=Quiet())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_steps_give_what_eager_ones_give_and_the_same_twice(made_data, tmp_path):
    weights = {}
    for name, choice in (("eager", "off"), ("compiled", "on"), ("again", "on")):
        config = SHORT.replace(compile=choice)
        result = train(None, made_data, out=tmp_path / name, config=config, progress=Quiet())
        weights[name] = load(result.model).state_dict()
    for name, tensor in weights["compiled"].items():
        assert torch.equal(tensor, weights["again"][name])
        assert torch.allclose(tensor, weights["eager"][name], atol=1e-3)
