"""Words of a config become functions."""

import math

import pytest

from synthrl_jax.named import resolve

TABLE = {"root": math.sqrt, "by_path": "math:floor"}


def test_words_paths_and_functions_resolve():
    assert resolve("root", TABLE) is math.sqrt
    assert resolve("by_path", TABLE) is math.floor
    assert resolve("math:ceil", TABLE) is math.ceil
    assert resolve(math.cos, TABLE) is math.cos


@pytest.mark.parametrize(
    "word, match",
    [
        ("cube", "unknown root finder 'cube': use one of by_path, root, or 'module:function'"),
        ("math:", "unknown root finder"),
        (":floor", "unknown root finder"),
        ("math:nothing", "cannot be imported: .*nothing"),
        ("no_such_module:f", "cannot be imported: .*no_such_module"),
        ("math:pi", "not callable"),
    ],
)
def test_other_words_say_what_is_wrong(word, match):
    with pytest.raises(ValueError, match=match):
        resolve(word, TABLE, kind="root finder")
