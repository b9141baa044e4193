"""Theorem 6.1 on a tabular tree: per-step DPO, advantage-weighted RL and pi_sft exp(A / beta) / Z are one policy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from synthrl_jax.credit.advantages import step_advantages
from synthrl_jax.learning.losses import advantage_weighted, dpo

ACTIONS, DEPTH, K, BETA = 4, 2, 5, 0.4


class Tree:
    """All sequences of DEPTH actions, a policy table per prefix, rewards at the leaves, Q of best-of-K by enumeration."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.states = [s for depth in range(DEPTH) for s in itertools.product(range(ACTIONS), repeat=depth)]
        self.sft = {s: softmax(rng.normal(size=ACTIONS)) for s in self.states}
        self.reward = {leaf: float(rng.random() < 0.4) for leaf in itertools.product(range(ACTIONS), repeat=DEPTH)}

    def success(self, prefix):
        """Probability that the policy ends right from here."""
        if len(prefix) == DEPTH:
            return self.reward[prefix]
        return sum(p * self.success((*prefix, a)) for a, p in enumerate(self.sft[prefix]))

    def value(self, prefix):
        return 1 - (1 - self.success(prefix)) ** K

    def reach(self, prefix):
        return np.prod([self.sft[prefix[:i]][a] for i, a in enumerate(prefix)])

    def advantage(self, prefix, action):
        path = [*(prefix[: i + 1] for i in range(len(prefix))), (*prefix, action)]
        q = np.array([self.value(p) for p in path])
        return step_advantages(q, self.value(()), np.ones(len(q), bool))[-1]

    def optimum(self):
        rows = []
        for s in self.states:
            tilted = self.sft[s] * np.exp([self.advantage(s, a) / BETA for a in range(ACTIONS)])
            rows.append(tilted / tilted.sum())
        return np.array(rows)


def minimised(population_loss):
    """The policy table [state, action] that minimises a loss of the table's log-probabilities."""
    start = np.zeros((sum(ACTIONS**d for d in range(DEPTH)), ACTIONS))

    @jax.jit
    def value_and_grad(flat):
        return jax.value_and_grad(lambda x: population_loss(jax.nn.log_softmax(x.reshape(start.shape))))(flat)

    def both(flat):
        value, gradient = value_and_grad(jnp.asarray(flat))
        return float(value), np.asarray(gradient, float)

    found = minimize(both, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 3000})
    return softmax(found.x.reshape(start.shape), axis=-1)


@pytest.mark.parametrize("seed", [0, 1])
def test_dpo_and_advantage_weighted_rl_have_the_optimum_of_the_theorem(seed):
    tree = Tree(seed)
    expected = tree.optimum()
    assert np.abs(expected - np.array([tree.sft[s] for s in tree.states])).max() > 0.1

    # Every ordered pair of next steps at every prefix, with both verdicts; its weight is its probability.
    picked, weights, ref = [], [], []
    for index, s in enumerate(tree.states):
        for one, other in itertools.permutations(range(ACTIONS), 2):
            preferred = 1 / (1 + np.exp(tree.advantage(s, other) - tree.advantage(s, one)))
            weights.append(tree.reach(s) * tree.sft[s][one] * tree.sft[s][other] * preferred)
            picked += [(index, one), (index, other)]
            ref += [np.log(tree.sft[s][one]), np.log(tree.sft[s][other])]
    state, action = np.array(picked).T

    with jax.enable_x64(True):
        pair_batch = {
            "mask": jnp.array([[False, True]] * len(ref)),
            "ref_logprobs": jnp.stack([jnp.zeros(len(ref)), jnp.array(ref)], axis=1),
            "pair_weight": jnp.array(weights),
        }

        def dpo_loss(table):
            logprobs = jnp.stack([jnp.zeros(len(ref)), table[state, action]], axis=1)
            return dpo(logprobs, pair_batch, beta=BETA).total

        np.testing.assert_allclose(minimised(dpo_loss), expected, atol=1e-4)

        # Every whole response, each step weighed by its advantage, each row by its probability.
        leaves = list(tree.reward)
        index = {s: i for i, s in enumerate(tree.states)}
        states = np.array([[index[leaf[:i]] for i in range(DEPTH)] for leaf in leaves])
        actions = np.array(leaves)
        reach = np.array([tree.reach(leaf) for leaf in leaves])
        row_batch = {
            "mask": jnp.ones((len(leaves), DEPTH), bool),
            "weight": jnp.repeat(reach[:, None], DEPTH, axis=1),
            "advantage": jnp.array([[tree.advantage(leaf[:i], leaf[i]) for i in range(DEPTH)] for leaf in leaves]),
            "step_ids": jnp.tile(jnp.arange(DEPTH), (len(leaves), 1)),
        }

        def weighted_loss(table):
            return advantage_weighted(table[states, actions], row_batch, beta=BETA, max_weight=1e9).total

        np.testing.assert_allclose(minimised(weighted_loss), expected, atol=1e-4)
