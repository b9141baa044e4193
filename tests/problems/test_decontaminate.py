"""Leaks by shared words, and near-duplicates by MinHash, against a plain comparison of all pairs."""

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared

from synthrl_jax.problems import decontaminate
from synthrl_jax.problems.decontaminate import drop_duplicates, drop_leaks, similarity_of
from synthrl_jax.problems.problem import Problem, load


def problem(name, question):
    return Problem(name, question, "1", "#### 1")


TEXTS = st.lists(st.sampled_from(["Tom", "has", "3", "figs", "1,000", "and", "buys"]), min_size=1, max_size=9).map(
    " ".join
)


def shares(a, b, n):
    """Whether two texts share n words in a row, or b is shorter and lies in a: by all pairs of places."""
    a, b = decontaminate.words(a), decontaminate.words(b)
    n = min(n, len(b))
    return any(a[i : i + n] == b[j : j + n] for i in range(len(a) - n + 1) for j in range(len(b) - n + 1))


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, max_size=5), st.lists(TEXTS, max_size=5), st.integers(1, 6))
def test_dropped_are_exactly_those_that_share_n_words_in_a_row(train, evaluation, n):
    train = [problem(f"t{i}", text) for i, text in enumerate(train)]
    evaluation = [problem(f"e{i}", text) for i, text in enumerate(evaluation)]
    kept, leaks = drop_leaks(train, evaluation, n)
    wanted = [t for t in train if not any(shares(t.question, e.question, n) for e in evaluation)]
    assert kept == wanted and [leak.dropped for leak in leaks] == [t.id for t in train if t not in wanted]
    by_id = {p.id: p.question for p in train + evaluation}
    for leak in leaks:
        for name in (leak.dropped, leak.because_of):
            assert leak.ngram in " ".join(decontaminate.words(by_id[name]))


def test_case_marks_and_thousands_commas_do_not_hide_a_leak():
    evaluation = [problem("e", "Ann sold 1,500 cups of tea; how many are left?")]
    kept, (leak,) = drop_leaks([problem("t", "ANN sold 1500 cups of tea -- HOW many are left, then?")], evaluation, 8)
    assert not kept and leak.because_of == "e" and leak.ngram == "ann sold 1500 cups of tea how many"


def test_gsm8k_s_own_splits_are_almost_clean():
    path = str(shared("data/gsm8k"))
    train, test = load("gsm8k", "train", path=path), load("gsm8k", "test", path=path)
    kept, leaks = drop_leaks(train, test)
    assert len(kept) + len(leaks) == len(train) and len(leaks) < 0.01 * len(train)
    copied = [problem(f"copy{i}", "Hello. " + p.question) for i, p in enumerate(test[:50])]
    assert not drop_leaks(copied, test)[0]


def test_near_duplicates_are_those_of_a_comparison_of_all_pairs():
    rng = random.Random(0)
    texts = [p.question for p in load("gsm8k", "train", path=str(shared("data/gsm8k")), count=120)]
    for text in texts[:60]:  # a copy with some words changed
        words = text.split()
        for place in rng.sample(range(len(words)), rng.randint(0, 6)):
            words[place] = rng.choice(["blue", "17", "Kim"])
        texts.append(" ".join(words))
    problems = [problem(f"p{i}", text) for i, text in enumerate(texts)]
    kept, leaks = drop_duplicates(problems, 0.7)
    assert 10 < len(leaks) < 60
    wanted = []
    for candidate in problems:
        if all(similarity_of(candidate.question, other.question) < 0.7 for other in wanted):
            wanted.append(candidate)
    assert kept == wanted
    assert all(similarity_of(a.question, b.question) < 0.7 for a, b in itertools.combinations(kept, 2))
    assert drop_duplicates(problems, 0.7) == (kept, leaks)


def test_the_report_names_the_first():
    kept, leaks = drop_leaks([problem("t", "one two three")], [problem("e", "one two three four")], 3)
    assert decontaminate.report(leaks, "test", 1) == 'test: 1 of 1 problems dropped, first t for e ("one two three")'
    assert decontaminate.report([], "test", 5) == "test: none of 5 problems dropped"
