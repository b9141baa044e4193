"""GSM8K from its own JSONL or prepared by TFDS: steps on lines, calculator marks, and the gold after `####`."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from synthrl_jax.problems.problem import Problem
from synthrl_jax.problems.rows import check_size, chosen, cut, jsonl_rows, text_of, tfds_directory, tfds_rows

MARK = re.compile(r"<<[^<>]*>>")
GOLD = re.compile(r"####\s*(\S.*?)\s*$")
PUBLISHED = {"train": 7473, "test": 1319}
HELP = (
    "give (problems.path) a folder with GSM8K's train.jsonl and test.jsonl, from github.com/openai/grade-school-math, "
    "grade_school_math/data; or one that TFDS has prepared, on a machine with a network: "
    "python -m experiments.prepare gsm8k --data_dir=DIR"
)


def problem_of(row: dict[str, Any], where: str, name: str, keep_marks: bool = False) -> Problem:
    """A problem of GSM8K's `question` and `answer`; ValueError with the place where one lacks or has no `#### answer`."""
    question, solution = text_of(row, "question", where), text_of(row, "answer", where)
    gold = GOLD.search(solution.split("\n")[-1])
    if gold is None:
        raise ValueError(f"{where}: the last line of 'answer' holds no '#### <answer>'")
    if not keep_marks:
        solution = MARK.sub("", solution)
    return Problem(id=name, question=question, answer=gold.group(1).replace(",", ""), solution=solution)


def read_jsonl(path: str, *, keep_marks: bool = False) -> Iterator[Problem]:
    """Problems of one JSONL file, in its order; ids are `<file stem>-<row>`.

    Calculator marks `<<2+3=5>>` are stripped unless `keep_marks`. Raises FileNotFoundError for a missing file, and ValueError
    with file and line for a row that is not JSON, lacks a field or has no `#### answer`.
    """
    for where, row in jsonl_rows(path, HELP):
        line = int(where.rsplit(":", 1)[1])  # the id of a row does not move when another one is blank
        yield problem_of(row, where, f"{epath.Path(path).stem}-{line - 1:05d}", keep_marks)


def read_tfds(directory, split: str, *, keep_marks: bool = False) -> list[Problem]:
    """Problems of a split that TFDS prepared, ordered by id: TFDS shuffles and keeps no row number, so ids are of the text."""
    problems = []
    for number, row in enumerate(tfds_rows(directory, split)):
        name = hashlib.sha256(str(row.get("question")).encode()).hexdigest()[:12]
        problems.append(problem_of(row, f"{directory}: {split} row {number}", f"{split}-{name}", keep_marks))
    return sorted(problems, key=lambda problem: problem.id)


def load(
    split: str,
    *,
    path: str = "",
    count: int | None = None,
    seed: int = 0,
    validation_share: float = 0.1,
    keep_marks: bool = False,
    max_characters: int | None = None,
    published: bool | None = None,
) -> list[Problem]:
    """GSM8K's problems from `path`: a directory with train.jsonl and test.jsonl, one train file for all splits, or a directory
    of TFDS (also with `gsm8k/<version>` under it; by default TFDS's own). Nothing is ever downloaded.

    The validation split is cut out of the training rows by a hash of the question, so it does not move when rows do; with a
    single file the test split is cut out in the same manner. `seed` picks which `count` problems of the split are taken;
    problems with more than `max_characters` in question and solution are left out, for small models. published: whether other
    sizes than 7,473 and 1,319 are an error (True), told (None), or as wanted (False).
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(f"split {split!r}: GSM8K has train, validation, test")
    root = epath.Path(path) if path else None
    part = "test" if split == "test" else "train"
    if root is not None and root.exists() and not root.is_dir():
        rows = list(read_jsonl(str(root), keep_marks=keep_marks))
        return chosen(cut(rows, split, validation_share, single=True, name="GSM8K"), count, seed, max_characters)
    prepared = tfds_directory(path, "gsm8k")
    if root is not None and (root / f"{part}.jsonl").exists():
        rows = list(read_jsonl(str(root / f"{part}.jsonl"), keep_marks=keep_marks))
    elif prepared is not None:
        rows = read_tfds(prepared, part, keep_marks=keep_marks)
    else:
        where = f"{path}: no such file or directory" if path and not root.exists() else f"no GSM8K in {path or 'TFDS'}"
        raise FileNotFoundError(f"{where}; {HELP}")
    check_size(len(rows), PUBLISHED[part], f"GSM8K's {part} split at {path or prepared}", published)
    if split != "test":
        rows = cut(rows, split, validation_share, single=False, name="GSM8K")
    return chosen(rows, count, seed, max_characters)
