"""YAML as a configuration uses it: what is a number, what is text, and that what is written reads back."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from greedypipe.launch.config.yaml_text import read_document, read_word, write_document


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-3", 0.001),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-7", -7),
        ("true", True),
        ("~", None),
        ("", None),
        ("0123", "0123"),
        ("1:30", "1:30"),
        ("0x1f", "0x1f"),
        ("yes", "yes"),
        ("off", "off"),
        ("2024-01-01", "2024-01-01"),
        ("exp #3", "exp #3"),
        ("a: b", "a: b"),
        ("- a", "- a"),
        ("*a", "*a"),
        ("[1, 2e0, no]", [1, 2.0, "no"]),
        ("{alpha: 0.9}", {"alpha": 0.9}),
        ("'5'", "5"),
        ('"a #b"', "a #b"),
    ],
)
def test_a_word_is_a_number_where_it_looks_like_one_and_text_otherwise(word: str, value: object) -> None:
    found = read_word(word)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("word", ["[1, 2", "{a: b #c}", "[1] # two", "{a: 1, a: 2}", "'a"])
def test_brackets_and_quotes_that_do_not_match_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"in \"<unicode string>\""):
        read_word(word)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists))
def test_what_is_written_reads_back_equal_here_and_by_yaml_1_1(value: object) -> None:
    text = write_document({"key": value})
    assert read_document(text.encode("utf-8")) == {"key": value} == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["yes", "1e3", "0123", "1:30", "~", "=", "<<", "2024-01-01", "1_0", "0x1f", "-"])
def test_text_that_looks_like_something_else_comes_back_as_text(text: str) -> None:
    written = write_document({"key": text})
    assert read_document(written.encode("utf-8")) == {"key": text} == yaml.safe_load(written)


def test_a_path_is_written_as_text_and_what_yaml_has_no_words_for_is_one_line() -> None:
    assert read_document(write_document({"root": Path("a/b")}).encode("utf-8")) == {"root": "a/b"}
    with pytest.raises(ValueError, match="got a complex, allowed: text"):
        write_document({"lr": 1j})
