"""Requests: what is refused, and what a fork takes from its root and the settings."""

import dataclasses
import json

import numpy as np
import pytest

from synthrl_jax.rollouts import Fork, Root, Settings
from synthrl_jax.rollouts.root import tasks


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"forks": (0,)}, "fork position 0 is not in 1..3"),
        ({"forks": (4,)}, "fork position 4 is not in 1..3"),
        ({"forks": (2, Fork(2))}, "two forks at position 2"),
        ({"tokens": [0.5, 1.0]}, "integers"),
        ({"tokens": [[1, 2, 3]]}, "one row"),
        ({"n": -1}, "negative"),
        ({"text": -1}, "text starts at -1"),
        ({"text": 3, "forks": (2, 3)}, "text starts at 3"),
        ({"id": "r7\ud800"}, "UTF-8"),
    ],
)
def test_a_root_that_makes_no_sense_is_refused_by_name(fields, words):
    with pytest.raises(ValueError, match=words) as error:
        Root(**({"id": "r7", "tokens": [1, 2, 3], "forks": (3,)} | fields))
    assert "r7" in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": -1},
        {"max_tokens": -1},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"temperature": 1e-31},
        {"top_p": 1e-50},
        {"first": 2**31},
    ],
)
def test_a_fork_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ValueError, match=f"fork at 2: {next(iter(fields))}"):
        Fork(2, **fields)


@pytest.mark.parametrize(
    "fields", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"rows": 0}, {"sampler": "fast"}]
)
def test_settings_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        Settings(**({"max_tokens": 4} | fields))


@pytest.mark.parametrize("fields", [{"max_tokens": 40.0}, {"top_k": 2.7}, {"rows": 8.0}])
def test_a_count_that_is_no_integer_is_refused(fields):
    with pytest.raises(TypeError):
        Settings(**({"max_tokens": 4} | fields))


def test_numbers_of_numpy_are_taken_and_can_be_written_as_json():
    f, i = np.float32, np.int64
    fork = Fork(i(2), n=i(2), max_tokens=i(5), temperature=f(0.5), top_p=f(0.25), lengths=(i(3), i(4)))
    settings = Settings(max_tokens=i(5), temperature=f(0.5), top_k=i(3), top_p=f(0.25), rows=i(8))
    assert fork == Fork(2, n=2, max_tokens=5, temperature=0.5, top_p=0.25, lengths=(3, 4))
    assert settings == Settings(max_tokens=5, temperature=0.5, top_k=3, top_p=0.25, rows=8)
    json.dumps([dataclasses.asdict(fork), dataclasses.asdict(settings)])


def test_any_integers_make_the_same_root():
    roots = [Root("a", kind([5, 6, 7]), (np.int64(2),)) for kind in (list, tuple, np.uint8, np.array)]
    assert all(root == roots[0] for root in roots)
    assert roots[0].forks == (Fork(2),)


def test_a_fork_takes_what_it_does_not_say_from_root_and_settings():
    root = Root("a", range(10), (3, Fork(5, n=1), Fork(6, max_tokens=9, temperature=0.0), Fork(7, n=0)), n=4)
    found = tasks([root], Settings(max_tokens=5, temperature=0.7), max_positions=12, vocab_size=1000)
    got = [(t.position, t.n, t.max_tokens, t.temperature) for t in found]
    assert got == [(3, 4, 5, 0.7), (5, 1, 5, 0.7), (6, 4, 6, 0.0)]  # the budget of fork 6 ends at position 12


def test_roots_of_one_id_or_beyond_the_model_are_refused():
    root = Root("a", range(10), (10,))
    with pytest.raises(ValueError, match="two roots have the id 'a'"):
        tasks([root, root], Settings(max_tokens=1), 20, 1000)
    with pytest.raises(ValueError, match="fork 10 is beyond the model's 9 positions"):
        tasks([root], Settings(max_tokens=1), 9, 1000)


def test_indices_that_the_device_cannot_hold_are_refused():
    settings = Settings(max_tokens=4)
    for n, refused in ((3, False), (4, True)):
        root = Root("a", [1, 2], (Fork(2, first=2**31 - 4, n=n),))
        if refused:
            with pytest.raises(ValueError, match="indices end at 2147483647"):
                tasks([root], settings, 16, 10)
        else:
            assert tasks([root], settings, 16, 10)[0].first == 2**31 - 4
    with pytest.raises(ValueError, match="stop_ids"):
        Settings(max_tokens=4, stop_ids=(2**40,))


def test_what_would_be_misread_is_refused():
    with pytest.raises(ValueError, match="root 1: an id must be a string, not int"):
        Root(1, [2, 3], [1])
    with pytest.raises(ValueError, match="not the characters of '###'"):
        Settings(max_tokens=1, stop_strings="###")
    with pytest.raises(TypeError):
        Fork(2, max_tokens=2.5)
    for tokens in ([2, 9, 1], [2, -1, 1]):
        with pytest.raises(ValueError, match=r"root a: its tokens must be in 0\.\.8"):
            tasks([Root("a", tokens, [1])], Settings(max_tokens=1), 20, 9)
    assert Fork(np.int64(2), n=np.int32(3)).n.__class__ is int and Root("a", [1], [1], n=np.int64(2)).n.__class__ is int
