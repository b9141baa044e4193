"""Weights in Hugging Face form against transformers: logits both ways, and every way a directory can be wrong."""

import contextlib
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synthrl_jax import policy as policies
from synthrl_jax.policy import decoder, families, hf_weights, sharding

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_numpy = pytest.importorskip("safetensors.numpy")

LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
FAMILIES = {
    "llama mha untied": ("LlamaConfig", {"num_key_value_heads": 4}),
    "llama gqa tied": ("LlamaConfig", {"tie_word_embeddings": True}),
    "llama 3 rope": ("LlamaConfig", {"rope_scaling": LLAMA3_ROPE, "rms_norm_eps": 1e-3}),
    "llama linear rope": ("LlamaConfig", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "mistral": ("MistralConfig", {"sliding_window": None, "head_dim": 12}),
    "qwen 2": ("Qwen2Config", {}),
    "qwen 3": ("Qwen3Config", {"head_dim": 12}),
}
TOKENS = np.random.default_rng(0).integers(0, 61, (2, 40))


@functools.cache
def reference(name):
    kind, extra = FAMILIES[name]
    config = getattr(transformers, kind)(
        vocab_size=61, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=256, **{"num_key_value_heads": 2, **extra},
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad(), contextlib.suppress(KeyError):
        for parameter in model.parameters():  # norms and biases too
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.ndim == 1) * 0.5)
    return model


def torch_logits(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.numpy()


@pytest.fixture
def llama(tmp_path):
    reference("llama gqa tied").save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_transformers_and_survive_the_way_back(name, tmp_path):
    model = reference(name)
    model.save_pretrained(tmp_path / "theirs")
    want = torch_logits(model)
    policy = policies.load_pretrained(tmp_path / "theirs")
    assert policy.tokenizer is None
    assert {leaf.dtype for leaf in jax.tree.leaves(policy.params)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(decoder.logits(policy.config, policy.params, TOKENS), want, atol=1e-4)

    hf_weights.save(tmp_path / "ours", policy.config, policy.params)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    np.testing.assert_allclose(torch_logits(back), want, atol=1e-5)
    again = hf_weights.load(tmp_path / "ours")[1]
    assert policies.checksum(again) == policies.checksum(policy.params)


def test_shards_with_an_index_are_read_as_one_file_is(tmp_path):
    model = reference("llama mha untied")
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, many = hf_weights.load(tmp_path / "one")[1], hf_weights.load(tmp_path / "many")[1]
    assert policies.checksum(one) == policies.checksum(many)
    missing = sorted((tmp_path / "many").glob("*.safetensors"))[1]
    missing.unlink()
    with pytest.raises(FileNotFoundError, match=missing.name):
        hf_weights.load(tmp_path / "many")


@pytest.mark.parametrize("sizes", [(1, 4, 2), (4, 1, 2), (2, 4, 1)])
def test_loading_onto_a_mesh_gives_the_same_parameters_in_its_sharding(sizes, llama):
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[:8])
    alone = policies.load_pretrained(llama)
    # a vocabulary of 61 divides over nothing
    fields = json.loads((llama / "config.json").read_text()) | {"vocab_size": 60}
    (llama / "config.json").write_text(json.dumps(fields))
    tensors = safetensors_numpy.load_file(llama / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:60]
    safetensors_numpy.save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    sharded = policies.load_pretrained(llama, mesh=mesh)
    q = sharded.params["layers"]["q"]
    assert q.sharding.shard_shape(q.shape) == (3, 32 // sizes[1], 4 // sizes[2], 8)
    np.testing.assert_array_equal(q, alone.params["layers"]["q"])
    want = decoder.logits(alone.config, alone.params, TOKENS % 60)[..., :60]
    np.testing.assert_allclose(decoder.logits(sharded.config, sharded.params, TOKENS % 60), want, atol=1e-4)


def test_dtype_is_taken_by_parameters_and_computation(llama):
    policy = policies.load_pretrained(llama, dtype="bfloat16")
    assert policy.config.dtype == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(policy.params)} == {jnp.dtype("bfloat16")}


def damage(directory, change):
    path = directory / "model.safetensors"
    tensors = safetensors_numpy.load_file(path)
    change(tensors)
    safetensors_numpy.save_file(tensors, path, metadata={"format": "pt"})


def test_a_missing_extra_or_misshapen_tensor_is_named(llama, tmp_path):
    name = "model.layers.1.self_attn.k_proj.weight"
    cases = {
        "missing": (lambda t: t.pop(name), "missing"),
        "extra": (lambda t: t.update({"model.layers.1.adapter.weight": np.ones(3, np.float32)}), "no place"),
        "shape": (lambda t: t.update({name: np.ones((16, 31), np.float32)}), r"\(16, 31\)"),
    }
    for case, (change, words) in cases.items():
        copy = shutil.copytree(llama, tmp_path / case)
        damage(copy, change)
        with pytest.raises(ValueError, match=words) as error:
            policies.load_pretrained(copy)
        assert ("adapter" if case == "extra" else name) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_truncated_file_is_named(llama):
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated"):
        policies.load_pretrained(llama)


def test_a_directory_that_is_none_is_said_to_be_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a directory nor a shipped model"):
        policies.load_pretrained(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        policies.load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json"):
        policies.load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architectures", ["GPT2LMHeadModel"]),
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("sliding_window", 16),
        ("final_logit_softcapping", 30.0),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("partial_rotary_factor", 0.5),
        ("layer_types", ["sliding_attention"]),
        ("hidden_size", None),
    ],
)
def test_what_would_change_the_logits_and_is_not_computed_is_named(field, value):
    config = decoder.DecoderConfig(vocab_size=61, width=32, layers=1, heads=4)
    fields = families.to_hf(config)
    assert families.from_hf(fields) == config
    named = value[0] if field == "architectures" else field
    with pytest.raises(families.UnsupportedModel, match=named):
        families.from_hf(fields | {field: value})


def test_the_number_of_parameters_is_that_of_the_arrays():
    for tied in (True, False):
        config = decoder.DecoderConfig(vocab_size=61, width=32, layers=2, heads=4, kv_heads=2, tied=tied, qkv_bias=tied)
        arrays = jax.tree.leaves(decoder.shapes(config))
        assert hf_weights.count_parameters(config) == sum(leaf.size for leaf in arrays)
