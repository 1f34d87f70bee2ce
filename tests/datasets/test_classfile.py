import pytest

from fullyconv.datasets._classfile import class_file_text, read_class_file
from fullyconv.errors import DataError

TWO = '[[class]]\nname = "paper"\n[[class]]\nname = "ink"\n'
COLORED = '[[class]]\nname = "sky"\ncolor = [0, 0, 9]\n[[class]]\nname = "sea"\ncolor = [0, 0, 99]\n'


def test_names_alone_suffice(folder):
    file = read_class_file(folder.text("classes.toml", TWO))
    assert file.classes.names == ("paper", "ink")
    assert file.indices is None
    assert not file.has_colors
    assert file.ignored == (255,)
    assert file.classes.ignore_index == 255


@pytest.mark.parametrize(
    ("ignore", "values", "colors"),
    [
        ("11", (11,), ()),
        ("[11, 12]", (11, 12), ()),
        ("[]", (), ()),
        ("[224, 224, 192]", (224, 224, 192), ((224, 224, 192),)),
        ("[[224, 224, 192], [0, 0, 0]]", (), ((224, 224, 192), (0, 0, 0))),
        ("[0, 0, 0]", (0, 0, 0), ((0, 0, 0),)),
    ],
)
def test_ignore_is_a_value_several_or_a_colour(folder, ignore, values, colors):
    file = read_class_file(folder.text("classes.toml", f"ignore = {ignore}\n{COLORED}"))
    assert file.ignored == values
    assert file.ignored_colors == colors


def test_a_proposed_text_reads_back(folder):
    text = class_file_text(["a", "b"], [(1, 2, 3), (4, 5, 6)], [7, 9])
    file = read_class_file(folder.text("classes.toml", text))
    assert file.classes.names == ("a", "b")
    assert file.classes.colors == ((1, 2, 3), (4, 5, 6))
    assert file.indices == (7, 9)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"ingore = 3\n{TWO}", "unknown key 'ingore'; fix: did you mean 'ignore'?"),
        (f"zzz = 3\n{TWO}", "unknown key 'zzz'; fix: the known keys are class, ignore"),
        (
            f'{TWO}colour = [1, 2, 3]\n[[class]]\nname = "x"',
            "class 2: unknown key 'colour'; fix: did you mean",
        ),
        (f"{TWO}[[class]]\n", 'class 3: it has no name; fix: add name = "..."'),
        (f"{TWO}index = -1\n", "class 2: index = -1; fix: write the class's value in the mask files"),
        (f"{TWO}color = [1, 2, 256]\n", "class 2: color = [1, 2, 256]; fix: write three numbers"),
        (f"{TWO}index = 1\n", "only some classes have 'index'; fix: give it to all of them or to none"),
        (f'ignore = "no"\n{TWO}', "ignore = 'no' is no mask value; fix:"),
        (f"ignore = true\n{TWO}", "ignore = True is no mask value; fix:"),
        (f"ignore = 1\n{TWO}", "ignore = 1 is also the index of class 'ink'; fix:"),
        ("", "it holds no list of classes; fix: begin each class with a line [[class]]"),
        ('[class]\nname = "x"', "it holds no list of classes; fix:"),
        ('[[class]]\nname = "x"', "a class table of 1 classes; fix: name the background as a class too"),
        (TWO.replace("ink", "paper"), "class names used twice: ['paper']; fix: rename one of them"),
        (COLORED.replace("99", "9"), "color = [0, 0, 9] is used twice; fix: give each class its own"),
    ],
)
def test_each_fault_is_named(folder, text, problem):
    with pytest.raises(DataError) as error:
        read_class_file(folder.text("classes.toml", text))
    assert any(line.startswith(f"classes.toml: {problem}") for line in error.value.problems), error.value


def test_all_faults_come_at_once(folder):
    with pytest.raises(DataError) as error:
        read_class_file(folder.text("classes.toml", f"ingore = 3\n{TWO}index = -1\nnmae = 3"))
    assert len(error.value.problems) == 4


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe"])
def test_what_is_no_toml_is_refused_with_an_example(folder, content):
    path = folder.text("classes.toml", "")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"\[\[class\]\]"):
        read_class_file(path)


def test_a_missing_file_is_refused(folder):
    with pytest.raises(DataError, match=r"No such file"):
        read_class_file(folder.root / "classes.toml")
