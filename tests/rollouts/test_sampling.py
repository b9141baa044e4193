"""The draw: its distribution, its supports, its keys and its near-tie margin."""

import functools
import hashlib
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from synthrl_jax.rollouts import sampling

V = 37


@functools.cache
def drawer(filtered):
    def draw(logits_RxV, keys_R, temperature_R, *filters):
        return sampling.draw(logits_RxV, keys_R, temperature_R, *filters)

    return jax.jit(draw)


def draws(logits_V, n, temperature=1.0, filters=None, seed=0):
    keys = jax.vmap(functools.partial(jax.random.fold_in, sampling.seed_key(seed)))(jnp.arange(n))
    logits = jnp.broadcast_to(jnp.asarray(logits_V, jnp.float32), (n, len(logits_V)))
    filters = () if filters is None else (jnp.full(n, filters[0]), jnp.full(n, filters[1], jnp.float32))
    return drawer(bool(filters))(logits, keys, jnp.full(n, temperature, jnp.float32), *filters)


def logits_of(size, seed=0, scale=2.0):
    return (scale * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


def expected(logits, temperature=1.0, top_k=0, top_p=1.0):
    """The filtered distribution by sorting, in float64."""
    scores = np.asarray(logits, np.float64) / temperature
    order = np.argsort(-scores)[: top_k or len(scores)]
    probs = np.exp(scores[order] - scores.max())
    probs /= probs.sum()
    kept = np.cumsum(probs) - probs < top_p
    full = np.zeros(len(scores))
    full[order[kept]] = probs[kept] / probs[kept].sum()
    return full


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.6, 0, 1.0), (1.7, 0, 1.0), (1.0, 7, 1.0), (1.0, 0, 0.8), (1.3, 12, 0.7), (1.0, 1, 1.0)],
)
def test_frequencies_are_those_of_the_filtered_tempered_softmax(temperature, top_k, top_p):
    logits, n = logits_of(V), 20_000
    filters = None if (top_k, top_p) == (0, 1.0) else (top_k, top_p)
    found = draws(logits, n, temperature, filters)
    want = expected(logits, temperature, top_k, top_p)
    tokens = np.asarray(found.token)
    counts = np.bincount(tokens, minlength=V)
    assert (counts[want == 0] == 0).all()
    likely = want * n >= 5
    observed = np.append(counts[likely], counts[~likely].sum())
    hoped = np.append(want[likely], want[~likely].sum()) * n
    observed, hoped = observed[hoped > 0], hoped[hoped > 0]
    statistic = ((observed - hoped) ** 2 / hoped).sum()
    assert stats.chi2.sf(statistic, max(1, len(hoped) - 1)) > 1e-3
    np.testing.assert_allclose(found.logprob, np.log(want[tokens]), atol=1e-5)
    np.testing.assert_allclose(found.model_logprob, np.log(expected(logits)[tokens]), atol=1e-5)


def test_no_filter_and_filters_that_keep_all_draw_the_same():
    logits = logits_of(V)
    plain, kept = draws(logits, 500), draws(logits, 500, filters=(0, 1.0))
    np.testing.assert_array_equal(plain.token, kept.token)
    np.testing.assert_array_equal(draws(logits, 500, filters=(V + 5, 1.0)).token, plain.token)


def test_temperature_zero_takes_the_best_with_certainty():
    logits = logits_of(1000)
    found = draws(logits, 50, temperature=0.0)
    assert (np.asarray(found.token) == logits.argmax()).all()
    assert (np.asarray(found.logprob) == 0).all()
    best, second = np.sort(logits)[[-1, -2]]
    np.testing.assert_allclose(found.gap, best - second, atol=1e-6)


def test_an_error_in_the_logits_below_half_the_gap_changes_no_token():
    logits, n = logits_of(300, scale=1.0), 4000
    found = draws(logits, n)
    error = 0.02
    noisy = logits + np.random.default_rng(1).uniform(-error, error, logits.shape)
    same = np.asarray(draws(noisy, n).token) == np.asarray(found.token)
    safe = np.asarray(found.gap) > 2 * error
    assert same[safe].all()
    assert safe.mean() > 0.5 and not same.all()


@pytest.mark.parametrize("temperature", [0.01, 0.1, 3.0])
def test_a_near_tie_holds_the_error_of_the_logits_at_any_temperature(temperature):
    """Half of NEAR_TIE in the logits is fifty times that in the scores at temperature .01."""
    rng, n = np.random.default_rng(3), 4000
    # the two best lie within a few near-ties of each other, so that noise moves tokens
    logits_nxV = np.tile(logits_of(40), (n, 1))
    logits_nxV[:, 1] = logits_nxV[:, 0] = logits_nxV.max() + 1
    logits_nxV[:, 1] += rng.uniform(-8, 8, n) * sampling.NEAR_TIE
    keys = jax.vmap(functools.partial(jax.random.fold_in, sampling.seed_key(0)))(jnp.arange(n))

    def drawn(logits):
        heats, k, p = jnp.full(n, temperature), jnp.full(n, 5), jnp.full(n, 0.9, jnp.float32)
        return drawer(True)(jnp.asarray(logits, jnp.float32), keys, heats.astype(jnp.float32), k, p)

    exact = drawn(logits_nxV)
    noisy = drawn(logits_nxV + rng.uniform(-0.4, 0.4, logits_nxV.shape) * sampling.NEAR_TIE)
    moved = np.asarray(exact.token) != np.asarray(noisy.token)
    near = np.asarray(exact.gap) < sampling.NEAR_TIE
    assert not (moved & ~near).any()
    assert near.mean() < 0.6
    assert moved.any() or temperature > 1


@pytest.mark.parametrize("seed", [-1, 1 << 32, 1 << 64])
def test_a_seed_that_would_be_anothers_is_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        sampling.seed_key(seed)


def test_an_error_in_the_logits_moves_no_token_over_the_edge_of_a_filter_unless_the_gap_says_so():
    logits, n = logits_of(V), 20_000
    keys = jax.vmap(functools.partial(jax.random.fold_in, sampling.seed_key(0)))(jnp.arange(n))
    rng = np.random.default_rng(2)
    mass = np.cumsum(np.sort(np.exp(logits) / np.exp(logits).sum())[::-1])
    ps = (mass[rng.integers(2, 9, n)] + rng.uniform(-4, 4, n) * sampling.NEAR_TIE).astype(np.float32)
    ones = jnp.ones(n, jnp.float32)

    def drawn(logits_nxV):
        return drawer(True)(jnp.asarray(logits_nxV, jnp.float32), keys, ones, jnp.zeros(n, jnp.int32), ps)

    exact = drawn(np.tile(logits, (n, 1)))
    noisy = drawn(logits + rng.uniform(-0.4, 0.4, (n, V)) * sampling.NEAR_TIE)
    differs = np.abs(np.asarray(exact.logprob) - np.asarray(noisy.logprob)) > 2 * sampling.NEAR_TIE
    differs |= np.asarray(exact.token) != np.asarray(noisy.token)
    near = np.asarray(exact.gap) < sampling.NEAR_TIE
    assert differs.sum() > 30 and not differs[~near].any()
    assert near.mean() < 0.4  # a quarter lies within NEAR_TIE of its edge, by construction


def test_equal_scores_at_the_edge_of_top_k_are_a_near_tie_only_where_they_are_drawn():
    logits = np.array([3.0, 2.0, 1.0, 1.0, -1.0], np.float32)
    found = draws(logits, 3000, filters=(3, 1.0))
    tokens, near = np.asarray(found.token), np.asarray(found.gap) < sampling.NEAR_TIE
    assert near[tokens == 2].all() and near[tokens == 3].all() and (tokens < 4).all()
    apart = draws(np.array([3.0, 2.0, 1.0, 0.5, -1.0], np.float32), 3000, filters=(3, 1.0))
    assert (np.asarray(apart.gap) < sampling.NEAR_TIE).mean() < 0.01


def test_each_part_of_a_task_changes_its_key_and_nothing_else_does():
    words = np.array([sampling.root_words("a"), sampling.root_words("b")], np.uint32)

    def bits(seed=0, root=0, fork=5, index=1, position=9):
        key = sampling.seed_key(seed)
        rows = sampling.row_keys(key, words[[root, 1]], np.array([fork, 3]), np.array([index, 2]))
        return jax.random.key_data(sampling.token_keys(rows, np.array([position, 4])))[0].tolist()

    different = [
        bits(),
        bits(seed=1),
        bits(root=1),
        bits(fork=6),
        bits(index=2),
        bits(position=10),
        bits(fork=1, index=5),
    ]
    assert len({tuple(pair) for pair in different}) == len(different)
    alone = sampling.row_keys(sampling.seed_key(0), words[:1], np.array([5]), np.array([1]))
    assert jax.random.key_data(sampling.token_keys(alone, np.array([9])))[0].tolist() == bits()


def test_the_words_of_a_root_are_the_same_in_every_process():
    code = "from synthrl_jax.rollouts.sampling import root_words; print(root_words('problem/17'))"
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    digest = hashlib.blake2b(b"problem/17", digest_size=8).digest()
    assert prints == {str(tuple(np.frombuffer(digest, "<u4").tolist()))}
