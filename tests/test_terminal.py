import io

from fullyconv.progress import Lines
from fullyconv.terminal import progress_for


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_pipes_get_plain_lines():
    with progress_for(io.StringIO()) as progress:
        assert isinstance(progress, Lines)


def test_terminals_get_a_bar_with_the_time_left_and_lines_stay():
    stream = Terminal()
    with progress_for(stream) as progress:
        progress.say("widths 16/32 [--widths]")
        progress.advance("training", 1, 4, "loss 0.5")
        progress.advance("training", 2, 4, "loss 0.4")
    shown = stream.getvalue()
    assert "widths 16/32 [--widths]" in shown
    assert "50%" in shown
    assert "loss 0.4" in shown
