"""The grouped sampler on a mesh: weights over tensor, groups over data, the same tokens."""

import jax
import pytest

from synthrl_jax.policy import sharding
from synthrl_jax.policy.checkpoint import Policy
from tests.rollouts.test_grouped_equality import (
    assert_equal_but_for_near_ties,
    drawn_by_both,
    random_policy,
    random_roots,
)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices (XLA_FLAGS of tests/conftest.py)")
@pytest.mark.parametrize(
    ("data", "fsdp", "tensor", "kv_heads"),
    [(4, 1, 2, 2), pytest.param(2, 2, 2, 4, marks=pytest.mark.long), pytest.param(8, 1, 1, 1, marks=pytest.mark.long)],
)
def test_eight_devices_draw_what_one_draws(data, fsdp, tensor, kv_heads, spilling):
    policy = random_policy(kv_heads, vocab_size=98)  # two ways
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, tensor=tensor, devices=jax.devices()[:8])
    spread = Policy(policy.config, jax.device_put(policy.params, sharding.shardings(policy.config, mesh)))
    roots = random_roots(6, 8, seed=data, filters=0.3)
    pairs, stats = drawn_by_both(policy, roots, grouped_policy=spread, rows=64)
    assert stats.shape.spills > 0 and stats.shape.mesh == mesh and stats.shape.groups % (data * fsdp) == 0
    assert_equal_but_for_near_ties(pairs)
