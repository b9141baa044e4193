"""MATH (Hendrycks et al. 2021) from the original directory of JSON files, from JSONL, or prepared as our TFDS data set."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from synthrl_jax.problems.problem import Problem
from synthrl_jax.problems.rows import (
    check_size,
    chosen,
    cut,
    file_text,
    json_row,
    jsonl_rows,
    text_of,
    tfds_directory,
    tfds_rows,
)

PUBLISHED = {"train": 7500, "test": 5000}
SUBJECTS = (
    "Algebra", "Counting & Probability", "Geometry", "Intermediate Algebra", "Number Theory", "Prealgebra", "Precalculus",
)  # fmt: skip
BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
BARE_BOX = re.compile(r"\\boxed\s+([^\s${}]+)")
HELP = (
    "MATH cannot be downloaded from its first home (a takedown request of January 2025); give (problems.path) a copy that "
    "you have: a folder with train/<subject>/*.json and test/<subject>/*.json, or with train.jsonl and test.jsonl, or one JSONL "
    "file, rows with problem, solution, level, type; or what `python -m experiments.prepare hendrycks_math` made of one"
)


def boxed(text: str) -> str | None:
    r"""The content of the last non-empty balanced \boxed{...} or \fbox{...}, or of `\boxed 7`; None where there is none."""
    for match in reversed(list(BOX.finditer(text))):
        depth = 0
        for place in range(match.end(), len(text)):
            if text[place - 1] == "\\" and text[place] in "{}" and (place < 2 or text[place - 2] != "\\"):
                continue
            depth += (text[place] == "{") - (text[place] == "}")
            if depth == 0:
                content = text[match.end() + 1 : place].strip()
                if content:
                    return content
                break
    bare = BARE_BOX.findall(text)
    return bare[-1] if bare else None


def problem_of(row: dict[str, Any], where: str, name: str) -> Problem:
    """A problem of MATH's fields; ValueError with the place for a row without text or without an answer in a box."""
    question, solution = text_of(row, "problem", where), text_of(row, "solution", where)
    answer = boxed(solution)
    if answer is None:
        raise ValueError(f"{where}: 'solution' holds no \\boxed{{answer}}")
    level = re.search(r"[1-5]", str(row.get("level", "")))  # a few rows say "Level ?"
    meta = {"level": int(level.group()) if level else None, "type": str(row.get("type") or row.get("subject") or "")}
    return Problem(id=name, question=question, answer=answer, solution=solution, meta=meta)


def read_directory(root, split: str) -> Iterator[Problem]:
    """Problems of `root/split/<subject>/*.json`, ordered by subject and number; ids are `<split>/<subject>/<number>`."""

    def order(path):
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]

    for subject in sorted(p for p in (epath.Path(root) / split).iterdir() if p.is_dir()):
        for path in sorted(subject.glob("*.json"), key=order):
            row = json_row(file_text(path), str(path))
            if not isinstance(row, dict):
                raise ValueError(f"{path}: a row is an object, not {type(row).__name__}")
            yield problem_of(row, str(path), f"{split}/{subject.name}/{path.stem}")


def read_jsonl(path: str) -> Iterator[Problem]:
    """Problems of one JSONL file, in its order; ids are `unique_id` where rows have one, else `<file stem>-<row>`."""
    for number, (where, row) in enumerate(jsonl_rows(path, HELP)):
        yield problem_of(row, where, str(row.get("unique_id") or f"{epath.Path(path).stem}-{number:05d}"))


def read_tfds(directory, split: str) -> Iterator[Problem]:
    """Problems of a split of our TFDS data set, in their first order."""
    for number, row in enumerate(tfds_rows(directory, split)):
        yield problem_of(row, f"{directory}: {split} row {number}", row["id"])


def read_split(path: str, part: str) -> tuple[list[Problem], bool]:
    """(problems of `train` or `test`, whether they are one file's, for all splits). FileNotFoundError says what to do."""
    root = epath.Path(path) if path else None
    if root is not None and root.exists():
        if not root.is_dir():
            return list(read_jsonl(str(root))), True
        if (root / part).is_dir():
            return list(read_directory(root, part)), False
        if (root / f"{part}.jsonl").exists():
            return list(read_jsonl(str(root / f"{part}.jsonl"))), False
    prepared = tfds_directory(path, "hendrycks_math")
    if prepared is None:
        raise FileNotFoundError(f"no MATH in {path or 'the place of TFDS'}; {HELP}")
    return list(read_tfds(prepared, part)), False


def load(
    split: str,
    *,
    path: str = "",
    count: int | None = None,
    seed: int = 0,
    validation_share: float = 0.05,
    levels: Sequence[int] | None = None,
    subjects: Sequence[str] | None = None,
    max_characters: int | None = None,
    published: bool | None = None,
) -> list[Problem]:
    r"""MATH's problems from `path` (see HELP; by default TFDS's own place); the answer is what the solution's last box holds.

    Splits, count, seed, max_characters and published as for `gsm8k.load`; levels (1 to 5) and subjects (as in SUBJECTS) keep a
    part. Answers are graded by the conventions `boxed_last` or `boxed_last_normalised`.
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(f"split {split!r}: MATH has train, validation, test")
    for name in subjects or ():
        if name not in SUBJECTS:
            raise ValueError(f"subject {name!r}: MATH has {', '.join(SUBJECTS)}")
    part = "test" if split == "test" else "train"
    problems, single = read_split(path, part)
    if not single:
        check_size(len(problems), PUBLISHED[part], f"MATH's {part} split at {path or 'the place of TFDS'}", published)
    if single or split != "test":
        problems = cut(problems, split, validation_share, single=single, name="MATH")
    kept = [
        p
        for p in problems
        if (levels is None or p.meta["level"] in levels) and (subjects is None or p.meta["type"] in subjects)
    ]
    return chosen(kept, count, seed, max_characters)
