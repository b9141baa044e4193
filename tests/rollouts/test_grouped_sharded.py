"""The grouped sampler on a mesh: weights over tensor, groups over data, the same tokens."""

import jax
import pytest

from synthrl_jax.policy import decoder, sharding
from synthrl_jax.policy.checkpoint import Policy
from synthrl_jax.rollouts import Root, Settings, grouped_sampler, sample

CONFIG = decoder.DecoderConfig(
    vocab_size=96, width=32, layers=2, heads=4, kv_heads=2, max_positions=128, dtype="float32"
)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices (XLA_FLAGS of tests/conftest.py)")
@pytest.mark.parametrize(("data", "fsdp", "tensor"), [(4, 1, 2), pytest.param(2, 2, 2, marks=pytest.mark.long)])
def test_eight_devices_draw_what_one_draws(data, fsdp, tensor):
    params = jax.jit(decoder.init, static_argnums=0)(CONFIG, jax.random.key(1))
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, tensor=tensor, devices=jax.devices()[:8])
    spread = Policy(CONFIG, jax.device_put(params, sharding.shardings(CONFIG, mesh)))
    roots = [Root(f"root {i}", list(range(2, 20 + i)), [5, 12, 20 + i - 2], n=4) for i in range(12)]
    settings = Settings(max_tokens=16, stop_ids=(3,), rows=32, sampler="grouped")
    stats = grouped_sampler.Stats()
    ours = {(c.root_id, c.fork, c.index): c for c, _ in grouped_sampler.run(spread, roots, settings, 3, stats)}
    assert stats.shape.mesh == mesh and stats.shape.groups % (data * fsdp) == 0
    oracle = list(sample(Policy(CONFIG, params), roots, settings, 3))
    assert len(oracle) == len(ours) == 12 * 3 * 4
    differing = [c for c in oracle if c.tokens != ours[c.root_id, c.fork, c.index].tokens]
    assert len(differing) <= 1  # a near-tie
