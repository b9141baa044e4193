"""Training problems that evaluation problems leak into, by shared word n-grams; near-duplicates among problems, by MinHash."""

import dataclasses
import re
from collections.abc import Sequence

from synthrl_jax.problems.problem import Problem

NGRAM = 13  # words; Brown et al. 2020 (appendix C) take 13 as well
WORD = re.compile(r"[^\W_]+")


@dataclasses.dataclass(frozen=True)
class Leak:
    """A problem to drop, the problem that it is too close to, and how close: the shared words, or the Jaccard similarity."""

    dropped: str
    because_of: str
    ngram: str = ""
    similarity: float = 0.0


def words(text: str) -> list[str]:
    """Letters and digits in lower case; thousands commas go, so that 1,000 is 1000."""
    return WORD.findall(re.sub(r"(?<=\d),(?=\d{3})", "", text).lower())


def drop_leaks(
    train: Sequence[Problem], evaluation: Sequence[Problem], n: int = NGRAM
) -> tuple[list[Problem], list[Leak]]:
    """(training problems that share no n words in a row with a question of the evaluation, what was dropped and why).

    A question of fewer than n words is looked for whole. Questions are compared, not solutions: these share stock phrases.
    """
    if n < 1:
        raise ValueError(f"an n-gram has at least one word, not {n}")
    seen: dict[int, dict[tuple[str, ...], str]] = {}  # length -> n-gram -> id of an evaluation problem
    for problem in evaluation:
        text = words(problem.question)
        size = min(n, len(text))
        grams = seen.setdefault(size, {})
        for i in range(len(text) - size + 1) if size else ():
            grams.setdefault(tuple(text[i : i + size]), problem.id)
    kept, leaks = [], []
    for problem in train:
        leak = _leak(problem, seen)
        if leak is None:
            kept.append(problem)
        else:
            leaks.append(leak)
    return kept, leaks


def _leak(problem: Problem, seen: dict[int, dict[tuple[str, ...], str]]) -> Leak | None:
    text = words(problem.question)
    for size in sorted(seen, reverse=True):
        for i in range(len(text) - size + 1):
            gram = tuple(text[i : i + size])
            if gram in seen[size]:
                return Leak(problem.id, seen[size][gram], ngram=" ".join(gram))
    return None


def shingles(text: str, n: int) -> set[bytes]:
    """Sets of n words in a row; of a shorter text, all its words at once."""
    found = words(text)
    return {" ".join(found[i : i + n]).encode() for i in range(max(1, len(found) - n + 1))}


def drop_duplicates(
    problems: Sequence[Problem], similarity: float = 0.7, n: int = 3, permutations: int = 128, seed: int = 1
) -> tuple[list[Problem], list[Leak]]:
    """(problems of which no two are alike, what was dropped and why); of two that are alike the earlier one stays.

    Alike: the Jaccard similarity of their sets of n words in a row is at least `similarity`. MinHash finds the candidates (all
    but a few in ten thousand of them at these settings), and the sets themselves decide.
    """
    from datasketch import MinHash, MinHashLSH

    if not 0.0 < similarity <= 1.0:
        raise ValueError(f"similarity must be in (0, 1], not {similarity}")
    # bands for a lower similarity than is asked for: candidates too many are sorted out, missed ones are lost
    index = MinHashLSH(threshold=max(0.1, similarity - 0.2), num_perm=permutations)
    sets = [shingles(problem.question, n) for problem in problems]
    kept, leaks = [], []
    for place, problem in enumerate(problems):
        sketch = MinHash(num_perm=permutations, seed=seed)
        sketch.update_batch(sorted(sets[place]))
        best = max(((_jaccard(sets[place], sets[i]), -i) for i in index.query(sketch)), default=(0.0, 0))
        if best[0] >= similarity:
            leaks.append(Leak(problem.id, problems[-best[1]].id, similarity=round(best[0], 4)))
        else:
            index.insert(place, sketch)
            kept.append(problem)
    return kept, leaks


def _jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b)


def report(leaks: Sequence[Leak], label: str, of: int) -> str:
    """One line: how many were dropped and the first of them."""
    if not leaks:
        return f"{label}: none of {of:,} problems dropped"
    first = leaks[0]
    why = f'"{first.ngram}"' if first.ngram else f"similarity {first.similarity:.2f}"
    return f"{label}: {len(leaks):,} of {of:,} problems dropped, first {first.dropped} for {first.because_of} ({why})"


def similarity_of(first: str, second: str, n: int = 3) -> float:
    """Jaccard similarity of two texts as `drop_duplicates` sees it."""
    return _jaccard(shingles(first, n), shingles(second, n))
