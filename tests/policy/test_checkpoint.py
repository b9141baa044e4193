"""Orbax checkpoints of parameters, their checksum, and meshes."""

import json

import jax
import numpy as np
import pytest

from synthrl_jax import policy as policies
from synthrl_jax.policy import decoder, sharding

CONFIG = decoder.DecoderConfig(vocab_size=48, width=32, layers=2, heads=4, kv_heads=2, scan=True)


@pytest.fixture(scope="module")
def params():
    return decoder.init(CONFIG, jax.random.key(3))


def eight_devices():
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    return jax.devices()[:8]


def test_a_checkpoint_gives_back_config_and_bits(params, tmp_path):
    policies.save_checkpoint(tmp_path / "c", CONFIG, params)
    policy = policies.load_pretrained(tmp_path / "c")
    assert policy.config == CONFIG and policy.tokenizer is None
    assert policies.checksum(policy.params) == policies.checksum(params)


def test_a_checkpoint_is_restored_onto_a_mesh(params, tmp_path):
    mesh = sharding.make_mesh(fsdp=2, tensor=2, devices=eight_devices())
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    policies.save_checkpoint(tmp_path / "c", CONFIG, params)
    policy = policies.load_pretrained(tmp_path / "c", mesh=mesh)
    down = policy.params["layers"]["down"]
    assert down.sharding.shard_shape(down.shape) == (2, 48, 16)
    assert policies.checksum(policy.params) == policies.checksum(params)


def test_a_checkpoint_of_another_shape_is_refused(params, tmp_path):
    policies.save_checkpoint(tmp_path / "c", CONFIG, params)
    path = tmp_path / "c" / "decoder.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"mlp_width": 64}))
    with pytest.raises(ValueError, match=r"down.*shape"):
        policies.load_pretrained(tmp_path / "c")
    path.write_text(json.dumps(fields | {"tied": True}))
    with pytest.raises(ValueError, match=r"unembed.*extra"):
        policies.load_pretrained(tmp_path / "c")
    path.write_text(json.dumps(fields | {"experts": 4}))
    with pytest.raises(ValueError, match="experts"):
        policies.load_pretrained(tmp_path / "c")


def test_the_checksum_sees_values_names_shapes_and_types(params):
    base = policies.checksum(params)
    assert base == policies.checksum(jax.tree.map(np.asarray, params)) and len(base) == 16
    one_bit = jax.tree.map(np.array, params)
    one_bit["layers"]["q"].view(np.uint32)[1, 2, 3, 4] ^= 1
    renamed = dict(params) | {"final_norm": {"gain": params["final_norm"]["scale"]}}
    reshaped = dict(params) | {"embed": np.asarray(params["embed"]).reshape(-1)}
    halved = jax.tree.map(lambda x: x.astype("bfloat16"), params)
    assert len({base, *map(policies.checksum, (one_bit, renamed, reshaped, halved))}) == 5


def test_meshes_that_do_not_fit_are_refused():
    devices = eight_devices()
    with pytest.raises(ValueError, match="8 devices"):
        sharding.make_mesh(fsdp=3, devices=devices)
    with pytest.raises(ValueError, match="8 devices"):
        sharding.make_mesh(data=2, fsdp=2, tensor=1, devices=devices)
    with pytest.raises(ValueError, match="at most one"):
        sharding.make_mesh(data=-1, fsdp=-1, devices=devices)
    with pytest.raises(ValueError, match=r"layers/k .*does not divide over mesh axis tensor = 4"):
        sharding.shardings(CONFIG, sharding.make_mesh(tensor=4, devices=devices))


def test_sharded_logits_and_gradients_equal_those_of_one_device(params):
    tokens = np.random.default_rng(0).integers(0, 48, (8, 12))

    def value(params, tokens):
        return decoder.token_logprobs(CONFIG, params, tokens).sum()

    want, want_grad = jax.jit(jax.value_and_grad(value))(params, tokens)
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2, devices=eight_devices())
    placed = jax.device_put(params, sharding.shardings(CONFIG, mesh))
    rows = jax.device_put(tokens, sharding.batch_sharding(mesh))
    got, got_grad = jax.jit(jax.value_and_grad(value))(placed, rows)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), got_grad, want_grad)
