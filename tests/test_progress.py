from types import SimpleNamespace

from fullyconv.progress import Lines, Quiet


def test_lines_go_to_standard_error_and_are_rare(capsys):
    lines = Lines(interval=3600)
    lines.say("width 16 (--width)")
    for done in range(100):
        lines.advance("training", done, 100)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "width 16 (--width)\n"


def test_lines_tell_share_and_time_left(capsys):
    lines = Lines(interval=0)
    lines.advance("training", 0, 4)
    lines.advance("training", 1, 4, "loss 0.5")
    assert "training:  25%, about 0 s left, loss 0.5" in capsys.readouterr().err


def test_a_task_that_comes_again_has_a_time_of_its_own(capsys, monkeypatch):
    times = iter([0.0, 100.0, 200.0, 1000.0, 1010.0])
    monkeypatch.setattr("fullyconv.progress.time", SimpleNamespace(monotonic=lambda: next(times)))
    lines = Lines(interval=1)
    for done in (0, 1, 2, 0, 1):
        lines.advance("evaluating", done, 2)
    assert "about 10 s left" in capsys.readouterr().err.splitlines()[-1]


def test_quiet_says_nothing(capsys):
    Quiet().say("hello")
    Quiet().advance("training", 1, 2)
    assert capsys.readouterr() == ("", "")
