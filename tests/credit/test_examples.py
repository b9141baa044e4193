"""Records of the credit stage: what they refuse, and their file."""

import time

import numpy as np
import pytest

from synthrl_jax.credit.example import Example, Response, StepValues, load_examples, response_example, save_examples


def some_examples():
    first = response_example(Response("r0", "p0", [5, 6, 7, 2], 2, "correct"), {"seed": np.int64(3), "checksum": "ab"})
    pair = Example(
        [5, 6, 9],
        [False, False, True],
        weight=[0, 0, 0.5],
        ref_logprobs=[0, -1, -2.5],
        pair=("fork:r1:0", "chosen"),
        meta={"problem_id": "p\n1 é", "counts": np.array([1, 8]), "about": {"b": 1.5, "a": None}},
        arrays={"advantage": np.float32([0.5, -1]), "step_ids": np.int32([-1, 0, 1])},
    )
    return [first, pair, Example([], [])]


def test_saved_examples_come_back(tmp_path):
    examples = some_examples()
    save_examples(tmp_path / "cell" / "examples.npz", examples)
    back = load_examples(tmp_path / "cell" / "examples.npz")
    assert [path.name for path in (tmp_path / "cell").iterdir()] == ["examples.npz"]
    assert len(back) == len(examples)
    for found, given in zip(back, examples):
        for name in ("tokens", "mask", "weight"):
            stored, value = getattr(found, name), getattr(given, name)
            np.testing.assert_array_equal(stored, value)
            assert stored.dtype == value.dtype
        assert found.pair == given.pair and found.arrays.keys() == given.arrays.keys()
        assert (found.ref_logprobs is None) == (given.ref_logprobs is None)
        for name, array in given.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], array)
            assert found.arrays[name].dtype == array.dtype
    np.testing.assert_array_equal(back[1].ref_logprobs, [0, -1, -2.5])
    assert back[0].meta == {"problem_id": "p0", "response_id": "r0", "seed": 3, "checksum": "ab"}
    assert back[1].meta == {"problem_id": "p\n1 é", "counts": [1, 8], "about": {"b": 1.5, "a": None}}


def test_equal_examples_give_equal_bytes(tmp_path, monkeypatch):
    save_examples(tmp_path / "a.npz", some_examples())
    monkeypatch.setattr(time, "time", lambda: 2e9)
    save_examples(tmp_path / "b.npz", some_examples())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_no_examples_can_be_saved(tmp_path):
    save_examples(str(tmp_path / "none.npz"), [])
    assert load_examples(str(tmp_path / "none.npz")) == []


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "examples.npz"
    save_examples(path, some_examples())
    before = path.read_bytes()
    with pytest.raises(TypeError, match="object"):
        save_examples(path, [Example([1], [True], meta={"what": object()})])
    assert path.read_bytes() == before


def test_records_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="outcome"):
        Response("r", "p", [1, 2], 1, "right")
    with pytest.raises(ValueError, match="prompt_len"):
        Response("r", "p", [1, 2], 3, "wrong")
    with pytest.raises(ValueError, match="mask has shape"):
        Example([1, 2], [True])
    with pytest.raises(ValueError, match="role"):
        Example([1], [True], pair=("x", "better"))
    with pytest.raises(ValueError, match="2 spans"):
        StepValues("r", [(0, 1), (1, 2)], [1, 2], [8, 8], rescues=((),))
