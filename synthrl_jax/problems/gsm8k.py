"""GSM8K from its own JSONL: `question`, `answer` with steps on lines, calculator marks, and the gold after `####`."""

import json
import re
from collections.abc import Iterator

from etils import epath

from synthrl_jax.problems.problem import Problem, content_share, sample_order

MARK = re.compile(r"<<[^<>]*>>")
GOLD = re.compile(r"####\s*(\S.*?)\s*$")


def read_jsonl(path: str, *, keep_marks: bool = False) -> Iterator[Problem]:
    """Problems of one JSONL file, in its order; ids are `<file stem>-<row>`.

    Calculator marks `<<2+3=5>>` are stripped unless `keep_marks`. Raises FileNotFoundError for a missing file, and ValueError
    with file and line for a row that is not JSON, lacks a field or has no `#### answer`.
    """
    file = epath.Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{path}: no such file; give GSM8K's train.jsonl or test.jsonl")
    for number, line in enumerate(file.read_text().split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: a row is an object with 'question' and 'answer', not {type(row).__name__}")
        for field in ("question", "answer"):
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise ValueError(f"{where}: no text in field {field!r}")
        solution = row["answer"].strip()
        gold = GOLD.search(solution.split("\n")[-1])
        if gold is None:
            raise ValueError(f"{where}: the last line of 'answer' holds no '#### <answer>'")
        if not keep_marks:
            solution = MARK.sub("", solution)
        yield Problem(
            id=f"{file.stem}-{number - 1:05d}",
            question=row["question"].strip(),
            answer=gold.group(1).replace(",", ""),
            solution=solution,
        )


def load(
    split: str,
    *,
    path: str,
    count: int | None = None,
    seed: int = 0,
    validation_share: float = 0.1,
    keep_marks: bool = False,
    max_characters: int | None = None,
) -> list[Problem]:
    """GSM8K's problems from `path`: a directory with train.jsonl and test.jsonl, or one train file for all splits.

    The validation split is cut out of the training file by a hash of the question, so it does not move when rows do; with a
    single file the test split is cut out in the same manner. `seed` picks which `count` problems of the split are taken;
    problems with more than `max_characters` in question and solution are left out, for small models.
    """
    root = epath.Path(path)
    if not root.exists():
        raise FileNotFoundError(
            f"{path}: no such file or directory; give a folder with GSM8K's train.jsonl and test.jsonl"
        )
    single = not root.is_dir()
    if split == "test" and not single:
        problems = list(read_jsonl(str(root / "test.jsonl"), keep_marks=keep_marks))
    else:
        rows = read_jsonl(str(root if single else root / "train.jsonl"), keep_marks=keep_marks)
        parts: dict[str, list[Problem]] = {"train": [], "validation": [], "test": []}
        if split not in parts:
            raise ValueError(f"split {split!r}: GSM8K has {', '.join(parts)}")
        for problem in rows:
            share = content_share(problem.question)
            if share < validation_share:
                parts["validation"].append(problem)
            elif single and share < 2 * validation_share:
                parts["test"].append(problem)
            else:
                parts["train"].append(problem)
        problems = parts[split]
    if max_characters is not None:
        problems = [p for p in problems if len(p.question) + len(p.solution) <= max_characters]
    order = sample_order(len(problems), seed)
    return [problems[i] for i in order[:count]]
