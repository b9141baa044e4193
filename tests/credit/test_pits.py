"""Other choices of the pit: what is significant, what a random step is, and which pairs come of them."""

import collections
import dataclasses

import jax
import numpy as np
import pytest
from scipy.stats import fisher_exact

from synthrl_jax.credit.assignment import assign
from synthrl_jax.credit.example import Response, StepValues
from synthrl_jax.credit.pairs import fork_pairs, solution_pairs, stable_key, weigh_pairs
from synthrl_jax.credit.pits import drop_p_values, random_pit, significant_pits
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.step import find_loss, loss_of_params
from synthrl_jax.policy import decoder

TOKENS = [90, 91, 10, 11, 20, 21, 30, 31, 40, 41]
SPANS = [(2, 4), (4, 6), (6, 8), (8, 10)]


def response(name="w", outcome="wrong"):
    return Response(name, "p", TOKENS, 2, outcome)


def counted(successes, attempts=8, rescues=True):
    found = [((70 + step, 71),) if rescues else () for step in range(4)]
    return StepValues("w", SPANS, successes, [attempts] * 4, found)


def test_the_p_value_is_fisher_s_exact_test_of_the_counts_before_and_after():
    rng = np.random.default_rng(0)
    for _ in range(30):
        attempts = rng.integers(0, 20, 5)
        successes = rng.binomial(attempts, rng.random(5))
        prompt = (3, 16)
        before = [prompt, *zip(successes, attempts)]
        for p, (c0, n0), c1, n1 in zip(drop_p_values(successes, attempts, prompt), before, successes, attempts):
            table = [[c1, n1 - c1], [c0, n0 - c0]]
            assert p == pytest.approx(fisher_exact(table, alternative="less").pvalue)


def test_significant_pits_fall_by_more_than_the_noise_of_their_counts():
    values = counted([8, 3, 2, 0])
    credit = assign(values, 0.9, 5)
    told = lambda level, prompt=(8, 16): significant_pits(  # noqa: E731
        values.successes, values.attempts, prompt, credit.advantage, credit.mask, level
    )
    assert told(0.1) == [1]  # 8 -> 3 of 8 falls (p = .013), 3 -> 2 does not, nor does 2 -> 0 (p = .23)
    assert told(0.3) == [1, 3]
    assert told(0.01) == []
    first = counted([0, 0, 0, 0])
    credit = assign(first, 0.9, 5)
    pits = significant_pits(first.successes, first.attempts, (10, 16), credit.advantage, credit.mask, 0.1)
    assert pits == [0]  # the prompt's own counts stand before step 0


def test_a_step_without_a_value_or_without_a_fall_of_q_is_no_significant_pit():
    values = dataclasses.replace(counted([8, 0, 0, 0]), attempts=[8, 3, 8, 8])
    credit = assign(values, 0.9, 5)
    assert significant_pits(values.successes, values.attempts, (8, 16), credit.advantage, credit.mask, 0.5) == []
    saturated = counted([16, 8, 8, 8], attempts=16)  # best of 8 of 16 with 8 right: hardly below 1
    credit = assign(saturated, 1.0, 16)
    assert credit.advantage[1] == 0
    assert significant_pits(saturated.successes, saturated.attempts, (16, 16), credit.advantage, credit.mask, 0.1) == []


def test_every_pit_makes_its_own_fork_pairs():
    values = counted([8, 2, 0, 0])
    credit = assign(values, 0.9, 5)
    pairs = fork_pairs(response(), values, credit, pits=[1, 2])
    assert [pair.chosen.meta["pit"] for pair in pairs] == [1, 2]
    assert [int(np.argmax(pair.rejected.mask)) for pair in pairs] == [4, 6]
    assert [pair.chosen.meta["value_before"] for pair in pairs] == [credit.q[0], credit.q[1]]
    assert len({pair.chosen.pair.id for pair in pairs}) == 2
    (default,) = fork_pairs(response(), values, credit)
    assert default.chosen.meta["pit"] == 2 and default.chosen.pair.id == "fork:w:0"


def test_a_random_pit_may_be_any_step_with_something_to_lose_and_is_stable():
    credit = assign(counted([2, 8, 3, 0]), 0.9, 5)
    assert credit.advantage[1] > 0, "a step that rises"
    drawn = [random_pit(credit.q, credit.advantage, credit.mask, stable_key(0, "pit", i)) for i in range(4000)]
    counts = collections.Counter(drawn)
    assert set(counts) == {0, 1, 2, 3} and min(counts.values()) > 900
    dead = assign(counted([6, 0, 0, 0]), 0.9, 5)
    drawn = {random_pit(dead.q, dead.advantage, dead.mask, key) for key in range(50)}
    assert drawn == {0, 1}, "after Q is 0 nothing can be lost"
    lost = assign(counted([0, 0, 0, 0]), 0.0, 5)
    assert random_pit(lost.q, lost.advantage, lost.mask, 3) == -1


def test_a_pit_that_was_not_measured_needs_a_live_prefix_and_a_rescue_but_no_drop():
    values, known = counted([2, 8, 3, 0]), [Response("c", "p", [90, 91, 50], 2, "correct")]
    rises = dataclasses.replace(assign(values, 0.9, 5), pit=1)
    assert fork_pairs(response(), values, rises) == solution_pairs(response(), values, rises, known) == []
    (pair,) = fork_pairs(response(), values, rises, need_drop=False)
    assert pair.chosen.tokens.tolist() == [90, 91, 10, 11, 71, 71]
    (pair,) = solution_pairs(response(), values, rises, known, need_drop=False)
    assert pair.rejected.tokens.tolist() == TOKENS[:6]
    assert fork_pairs(response(), counted([2, 8, 3, 0], rescues=False), rises, need_drop=False) == []
    dead = dataclasses.replace(assign(counted([0, 0, 0, 0]), 0.9, 5), pit=2)
    assert fork_pairs(response(), counted([0, 0, 0, 0]), dead, need_drop=False) == []
    assert solution_pairs(response(), counted([0, 0, 0, 0]), dead, known, need_drop=False) == []


def test_a_least_value_leaves_out_pits_with_little_to_lose():
    values, known = counted([8, 1, 0, 0]), [Response("c", "p", [90, 91, 50], 2, "correct")]
    credit = assign(values, 0.9, 5)
    assert credit.pit == 2 and credit.q[1] == pytest.approx(0.625)
    for least, count in ((0.0, 1), (0.625, 1), (0.63, 0)):
        assert len(fork_pairs(response(), values, credit, least_value=least)) == count
        assert len(solution_pairs(response(), values, credit, known, least_value=least)) == count


def weighted_pairs():
    pairs = []
    for i, successes in enumerate(([8, 1, 0, 0], [8, 8, 3, 0], [2, 0, 0, 0])):
        values = counted(successes)
        made = fork_pairs(response(f"w{i}"), values, assign(values, 0.9, 5))
        assert len(made) == 1
        pairs += made
    return weigh_pairs(pairs)


def test_weights_are_in_proportion_to_the_value_and_have_mean_1():
    pairs = weighted_pairs()
    values = np.array([pair.chosen.meta["value_before"] for pair in pairs])
    weights = np.array([pair.chosen.meta["pair_weight"] for pair in pairs])
    np.testing.assert_allclose(weights, values / values.mean())
    assert len(set(weights)) == 3 and [p.rejected.meta["pair_weight"] for p in pairs] == weights.tolist()
    assert weigh_pairs([]) == []


@pytest.mark.parametrize("pack", ["none", "segments", "tree"])
def test_the_loss_sees_the_weights(pack):
    config = decoder.DecoderConfig(vocab_size=96, width=8, layers=1, heads=2)
    pairs = weighted_pairs()
    rows = [dataclasses.replace(row, ref_logprobs=-np.ones(len(row.tokens))) for pair in pairs for row in pair]
    loss = loss_of_params(config, find_loss("dpo", {"beta": 0.5}))
    params = decoder.init(config, jax.random.key(0))

    def total(rows):
        batch = Batches(rows, batch=len(rows) // 2, seed=0, pad_id=0, pack=pack).at(0)
        return loss(params, {name: array[0] for name, array in batch.items()})

    each = [float(total(rows[i : i + 2]).total) for i in (0, 2, 4)]  # total = weight * loss of the pair
    plain = [dataclasses.replace(row, meta={**row.meta, "pair_weight": 1.0}) for row in rows]
    bare = [float(total(plain[i : i + 2]).total) for i in (0, 2, 4)]
    weights = [pair.chosen.meta["pair_weight"] for pair in pairs]
    np.testing.assert_allclose(each, np.multiply(weights, bare), rtol=1e-5)
    together = total(rows)
    assert float(together.total) == pytest.approx(sum(each), rel=1e-4)
    assert float(together.weight) == pytest.approx(3.0, rel=1e-5)
