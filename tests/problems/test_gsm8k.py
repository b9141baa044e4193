"""GSM8K's own JSONL, and the exact place of a bad row."""

import json

import pytest
from shared_data import shared

from synthrl_jax.problems import gsm8k
from synthrl_jax.problems.problem import load

GOOD = {"question": "Two and 3?", "answer": "2+3=<<2+3=5>>5\n#### 1,005"}


def write(path, *rows):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return str(path)


def test_marks_are_stripped_or_kept_and_commas_leave_the_gold(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD)
    (problem,) = gsm8k.read_jsonl(path)
    assert (problem.answer, problem.solution) == ("1005", "2+3=5\n#### 1,005")
    (kept,) = gsm8k.read_jsonl(path, keep_marks=True)
    assert "<<2+3=5>>" in kept.solution


@pytest.mark.parametrize(
    "row,what",
    [
        ("{", "not JSON"),
        ("[1]", "object"),
        ({"question": "x"}, "'answer'"),
        ({"question": " ", "answer": "#### 1"}, "'question'"),
        ({"question": "x", "answer": "no gold"}, "####"),
        ({"question": "x", "answer": "#### "}, "####"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, row, what):
    path = write(tmp_path / "bad.jsonl", GOOD, GOOD, row)
    with pytest.raises(ValueError, match=rf"bad\.jsonl:3: .*{what}"):
        list(gsm8k.read_jsonl(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        load("gsm8k", "train", path=str(tmp_path / "none.jsonl"))


def test_one_file_is_cut_into_three_disjoint_splits(tmp_path):
    path = write(tmp_path / "a.jsonl", *({"question": f"q{i}?", "answer": f"#### {i}"} for i in range(300)))
    parts = [{p.id for p in load("gsm8k", split, path=path)} for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == 300 and len(set().union(*parts)) == 300 and all(parts)


def test_the_published_files_have_their_published_sizes():
    path = str(shared("data/gsm8k"))
    train, validation, test = (load("gsm8k", split, path=path) for split in ("train", "validation", "test"))
    assert len(train) + len(validation) == 7473 and len(test) == 1319
    assert all(p.answer and "<<" not in p.solution for p in train + test)
    assert load("gsm8k", "train", path=path, count=5, seed=1) != load("gsm8k", "train", path=path, count=5, seed=2)
