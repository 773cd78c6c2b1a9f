"""A config file that cannot be used, and fields that are not there: one sentence each."""

import re

import pytest

from robust_saliency import config_file

CONFIG = {
    "train": {"epochs": 3, "log": True},
    "model": {"mean": [0.5], "name": "resnet18"},
    "study": {"runs": [{"label": "standard"}]},
}


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "mine.py").write_text(text)
        return str(tmp_path / "mine.py")

    return write


BROKEN = {
    "x = 1": "it has no function get_config",
    "import nothing_of_the_kind": "line 1: ModuleNotFoundError: No module named 'nothing_of_the_kind'",
    "def get_config():\n    a = 1\n    return b": "line 3: NameError: name 'b' is not defined",
    "def get_config():\n    a = (1": "line 2: SyntaxError: '(' was never closed",
    "def get_config():\n    return {}": "must return a ConfigDict, got {}",
    "def get_config(size):\n    return size": "needs an argument",
    "def get_config():\n    raise ValueError('Sizes are a and b.')": "mine.py: Sizes are a and b.",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_is_no_config_is_told_in_one_sentence(written, text):
    with pytest.raises(ValueError, match=re.escape(BROKEN[text])) as error:
        config_file.load(written(text))
    assert "\n" not in str(error.value)


def test_the_text_after_the_colon_is_the_argument(written):
    file = written(
        "import ml_collections\n\ndef get_config(size='full'):\n    return ml_collections.ConfigDict({'size': size})\n"
    )
    assert config_file.load(file).size == "full"
    assert config_file.load(f"{file}:small").size == "small"
    without = written("def get_config():\n    return None\n")
    with pytest.raises(ValueError, match="takes no argument, got 'small' after the colon"):
        config_file.load(f"{without}:small")


@pytest.mark.parametrize(
    "word, message",
    [
        ("--config.train.epoch=3", "config.train: Unknown field 'epoch'. Did you mean 'epochs'?"),
        ("-config.trian.epochs=3", "config: Unknown field 'trian'. Did you mean 'train'?"),
        ("--noconfig.train.lag", "config.train: Unknown field 'lag'. Did you mean 'log'?"),
        ("--config.train.epochs.x", "config.train.epochs is no section"),
        ("--config.train[0]=3", "config.train is no list"),
        ("--config.study.runs[1].label=x", "config.study.runs has 1 entries"),
        ("--config.study.runs[0].lable=x", "config.study.runs[0]: Unknown field 'lable'. Did you mean 'label'?"),
    ],
)
def test_a_field_that_is_not_there_is_named_with_its_near_match(word, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config_file.check_overrides(CONFIG, ["launch.py", "--config=file.py", word])


def test_fields_that_are_there_pass():
    words = ["--config.train.epochs", "3", "--noconfig.train.log", "--config.study.runs[0].label=x", "--workdir=w"]
    config_file.check_overrides(CONFIG, words)


@pytest.mark.parametrize(
    "message, said",
    [
        ("flag --config.train.epochs=two: invalid literal", "config.train.epochs must be a whole number, got 'two'."),
        ("flag --config.train.log=2: Non-boolean", "config.train.log must be True or False, got '2'."),
        (
            "flag --config.train=2: `2` is not a dict.",
            "config.train is a section with the fields epochs, log; set one of them, not the whole.",
        ),
        ("flag --mode=2: other", "flag --mode=2: other"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_the_right_one(message, said):
    assert config_file.wrong_value(CONFIG, message) == said
