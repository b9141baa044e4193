"""SVAMP, MultiArith and GSM-Hard: word problems that nothing is trained on, for evaluation out of distribution."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from etils import epath

from synthrl_jax.problems.problem import Problem
from synthrl_jax.problems.rows import check_size, chosen, jsonl_rows


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus: file names it goes by, its published number of rows, where it is from, and (question, answer) of a row."""

    files: tuple[str, ...]
    published: int
    home: str
    read: Callable[[dict[str, Any]], tuple[Any, Any]]


def _svamp(row: dict[str, Any]) -> tuple[Any, Any]:
    if "Body" in row:  # SVAMP.json of its repository
        body = str(row["Body"]).strip()
        return (
            f"{body}{'' if body.endswith(('.', ',', '?', '!')) else ','} {str(row.get('Question')).strip()}",
            row.get("Answer"),
        )
    return row.get("question"), row.get("answer")


def _multiarith(row: dict[str, Any]) -> tuple[Any, Any]:
    if "sQuestion" in row:  # MultiArith.json as MAWPS has it
        return row["sQuestion"], (row.get("lSolutions") or [None])[0]
    return row.get("question"), row.get("answer", row.get("final_ans"))


def _gsm_hard(row: dict[str, Any]) -> tuple[Any, Any]:
    return row.get("question", row.get("input")), row.get("answer", row.get("target"))


CORPORA = {
    "svamp": Corpus(("svamp.jsonl", "SVAMP.json"), 1000, "github.com/arkilpatel/SVAMP", _svamp),
    "multiarith": Corpus(
        ("multiarith.jsonl", "mawps_multiarith.jsonl", "MultiArith.json"), 600,
        "github.com/reasoning-machines/pal, datasets/mawpsmultiarith.jsonl", _multiarith,
    ),
    "gsm_hard": Corpus(
        ("gsm_hard.jsonl", "gsmhardv2.jsonl", "gsmhard.jsonl"), 1319,
        "github.com/reasoning-machines/pal, datasets/gsmhardv2.jsonl", _gsm_hard,
    ),
}  # fmt: skip


def number(value: Any) -> str | None:
    """A number as the grader compares it: `8.0` is `8`, no thousands commas; None for what is no number."""
    text = str(value).replace(",", "").strip()
    if isinstance(value, bool) or not re.fullmatch(r"-?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", text):
        return None
    if re.fullmatch(r"-?\d+", text):
        return str(int(text))
    amount = float(text)
    return str(int(amount)) if amount == int(amount) and abs(amount) < 1e15 else text


def _load(
    name: str, split: str, *, path: str = "", count: int | None = None, seed: int = 0, published: bool | None = None,
    max_characters: int | None = None,
) -> list[Problem]:  # fmt: skip
    corpus = CORPORA[name]
    if split != "test":
        raise ValueError(f"split {split!r}: {name} has only test, nothing is trained on it")
    root = epath.Path(path or ".")
    found = [root / file for file in corpus.files if (root / file).exists()] if root.is_dir() else [root]
    if not path or not found or not found[0].exists():
        raise FileNotFoundError(
            f"no {name} at {path or '(no path given)'}: give {corpus.files[0]}, or the folder that holds it, from {corpus.home}"
        )
    problems = []
    for place, (where, row) in enumerate(jsonl_rows(found[0])):
        question, answer = corpus.read(row)
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"{where}: no text in the question")
        gold = number(answer)
        if gold is None:
            raise ValueError(f"{where}: the answer {answer!r} is no number")
        problems.append(
            Problem(f"{name}-{place:05d}", " ".join(question.split()), gold, f"#### {gold}", {"corpus": name})
        )
    check_size(len(problems), corpus.published, f"{name} at {found[0]}", published)
    return chosen(problems, count, seed, max_characters)


def svamp(split: str, **settings) -> list[Problem]:
    """SVAMP (Patel et al. 2021), 1,000 problems: `path` is svamp.jsonl or its folder; count, seed, published as for GSM8K."""
    return _load("svamp", split, **settings)


def multiarith(split: str, **settings) -> list[Problem]:
    """MultiArith (Roy and Roth 2015), 600 problems; settings as for `svamp`."""
    return _load("multiarith", split, **settings)


def gsm_hard(split: str, **settings) -> list[Problem]:
    """GSM-Hard (Gao et al. 2022), 1,319 problems: GSM8K's test with large numbers: not an independent set."""
    return _load("gsm_hard", split, **settings)
