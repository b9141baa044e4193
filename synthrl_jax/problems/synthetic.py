"""Synthetic problems that `experiments.synthesize` wrote, for training, with a real data set for validation and test."""

from typing import Any

from etils import epath

from synthrl_jax.problems import decontaminate
from synthrl_jax.problems.problem import Problem
from synthrl_jax.problems.problem import load as load_source
from synthrl_jax.problems.rows import chosen, jsonl_rows, text_of

FILE = "problems.jsonl"


def read(path: str) -> list[Problem]:
    """Problems of a file of `Problem` rows, or of the directory that synthesize wrote. Errors name file and line."""
    root = epath.Path(path)
    file = root / FILE if root.is_dir() else root
    problems = []
    for where, row in jsonl_rows(file, "give (problems.path) what `python -m experiments.synthesize --out=DIR` wrote"):
        fields = {field: text_of(row, field, where) for field in ("id", "question", "answer", "solution")}
        problems.append(Problem(**fields, meta=dict(row.get("meta") or {})))
    return problems


def load(
    split: str,
    *,
    path: str = "",
    evaluation: dict[str, Any],
    count: int | None = None,
    seed: int = 0,
    max_characters: int | None = None,
    ngram: int = decontaminate.NGRAM,
) -> list[Problem]:
    """train: the synthetic problems at `path`, less those that leak; validation and test: those splits of `evaluation`.

    evaluation: a source's name under `source` and its settings, e.g. {"source": "gsm8k", "path": DIR}. Training problems that
    share `ngram` words in a row with a validation or test question are dropped and told; 0 keeps them.
    """
    settings = dict(evaluation)
    source = settings.pop("source")
    if split != "train":
        return load_source(source, split, count=count, seed=seed, max_characters=max_characters, **settings)
    if not path:
        raise FileNotFoundError(
            "no synthetic problems: give (problems.path) the directory that experiments.synthesize wrote"
        )
    problems = read(path)
    if ngram:
        held_out = [p for part in ("validation", "test") for p in load_source(source, part, **settings)]
        problems, leaks = decontaminate.drop_leaks(problems, held_out, ngram)
        print(decontaminate.report(leaks, f"decontamination of {path}", len(problems) + len(leaks)), flush=True)
    return chosen(problems, count, seed, max_characters)
