import pytest

from fullyconv.errors import ConfigError
from fullyconv.training import TrainConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("minutes", 0.0),
        ("batch", 0),
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
        ("warmup", 1.0),
        ("average", 1.0),
        ("clip", 0.0),
        ("validation", 1.0),
        ("seed", -1),
        ("workers", -1),
        ("minutes", float("nan")),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_and_option(name, value):
    with pytest.raises(ConfigError, match=f"{name} = .*--{name.replace('_', '-')}"):
        TrainConfig(**{name: value})


def test_the_defaults_are_in_range():
    assert TrainConfig().seed == 0


def test_a_loss_that_cannot_be_read_is_refused_before_anything_is_begun():
    with pytest.raises(ConfigError, match="a loss 'dise'"):
        TrainConfig(loss="cross_entropy + dise")
