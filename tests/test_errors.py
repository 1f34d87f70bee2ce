import inspect

import pytest

from fullyconv import errors


def test_every_error_is_drawn_in_the_tree():
    names = [name for name, value in vars(errors).items() if inspect.isclass(value)]
    assert [name for name in names if name not in (errors.__doc__ or "")] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(errors.ImageError, 2), (errors.ConfigError, 2), (errors.MachineError, 3), (errors.FullyconvError, 1)],
)
def test_an_error_says_what_was_given_expected_and_to_do(error, code):
    message = str(error("a mask of 3×4", "3×5", "export it again"))
    assert message == "a mask of 3×4; expected 3×5. To fix: export it again"
    assert error.exit_code == code


def test_a_data_error_lists_every_problem():
    error = errors.DataError(
        "2 problems in data/", "none", "mend them", ("a.png: missing", "b.png: truncated")
    )
    assert str(error).splitlines()[1:] == ["  - a.png: missing", "  - b.png: truncated"]
