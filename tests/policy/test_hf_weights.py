"""Weights in Hugging Face form against transformers: logits both ways, and every way a directory can be wrong."""

import contextlib
import dataclasses
import functools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synthrl_jax import policy as policies
from synthrl_jax.policy import decoder, families, hf_weights, sharding, tensor_files

ROOT = Path(__file__).resolve().parents[2]

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
    "llama 3.2": ("LlamaConfig", {"rope_scaling": LLAMA3_ROPE, "tie_word_embeddings": True, "head_dim": 16}),
    "deepseek-math": ("LlamaConfig", {"num_key_value_heads": 4, "rms_norm_eps": 1e-6, "attention_bias": False}),
    "mistral": ("MistralConfig", {"sliding_window": None, "head_dim": 12}),
    "mistral 0.1": ("MistralConfig", {"sliding_window": 4096, "max_position_embeddings": 32768}),
    "qwen 2": ("Qwen2Config", {}),
    "qwen 2.5": ("Qwen2Config", {"tie_word_embeddings": True, "rope_theta": 1e6, "sliding_window": 128}),
    "qwen 3": ("Qwen3Config", {"head_dim": 12}),
}
TOKENS = np.random.default_rng(0).integers(0, 61, (2, 40))


@functools.cache
def reference(name):
    kind, extra = FAMILIES[name]
    config = getattr(transformers, kind)(
        vocab_size=61, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
        **{"max_position_embeddings": 256, "num_key_value_heads": 2, **extra},
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


def test_a_truncated_tensor_is_named(llama):
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    *_, last = tensor_files_of(llama)
    with pytest.raises(ValueError, match=f"tensor {last} ends at"):
        policies.load_pretrained(llama)


def tensor_files_of(directory):
    """Names in the order of their bytes."""
    data = (directory / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    return sorted(header, key=lambda name: header[name]["data_offsets"])


def test_a_damaged_header_is_named(llama):
    path = llama / "model.safetensors"
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])

    def write(header, data=whole[8 + length :], length=None):
        text = json.dumps(header).encode()
        path.write_bytes((length or len(text)).to_bytes(8, "little") + text + data)

    name = "model.layers.2.mlp.up_proj.weight"
    cases = {
        "shape": (dict(header) | {name: header[name] | {"shape": [48, 31]}}, name),
        "dtype": (dict(header) | {name: header[name] | {"dtype": "I32"}}, f"{name} has the type I32"),
        "offsets": (dict(header) | {name: header[name] | {"data_offsets": [5, 6149]}}, "begins at byte 5"),
        "lacking": (dict(header) | {name: {"dtype": "F32"}}, "cannot be read"),
        "list": ([1, 2], "cannot be read"),
    }
    for case, (changed, words) in cases.items():
        write(changed)
        with pytest.raises(ValueError, match=re.escape(words)) as error:
            policies.load_pretrained(llama)
        assert "\n" not in str(error.value), case
    write(header, data=whole[8 + length :] + b"more")
    with pytest.raises(ValueError, match="4 bytes follow"):
        policies.load_pretrained(llama)
    write(header, length=1 << 60)
    with pytest.raises(ValueError, match="truncated or no safetensors"):
        policies.load_pretrained(llama)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="truncated or no safetensors"):
        policies.load_pretrained(llama)


def test_an_index_that_does_not_fit_its_files_is_named(tmp_path):
    reference("llama mha untied").save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))

    def changed(change):
        copy = json.loads(json.dumps(index))
        change(copy["weight_map"])
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(copy))

    changed(
        lambda places: places.update({"lm_head.weight": files[0] if places["lm_head.weight"] != files[0] else files[1]})
    )
    with pytest.raises(ValueError, match=r"lm_head\.weight in .*missing"):
        policies.load_pretrained(tmp_path)
    changed(lambda places: places.update({"model.norm.gain": files[0]}))
    with pytest.raises(ValueError, match=r"model\.norm\.gain"):
        policies.load_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="no index of tensors"):
        policies.load_pretrained(tmp_path)


def test_pickled_weights_are_told_how_to_become_safetensors(llama):
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors.*save_pretrained"):
        policies.load_pretrained(llama)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_are_read_exactly(dtype, llama):
    tensors = safetensors_numpy.load_file(llama / "model.safetensors")
    kind = np.dtype(dtype) if dtype == "float16" else jnp.dtype(dtype)
    half = {name: value.astype(kind) for name, value in tensors.items()}
    safetensors_numpy.save_file(half, llama / "model.safetensors", metadata={"format": "pt"})
    policy = policies.load_pretrained(llama)
    want = half["model.layers.1.mlp.up_proj.weight"].astype(np.float32).T
    np.testing.assert_array_equal(policy.params["layers"]["up"][1], want)
    hf_weights.save(llama.parent / "again", policy.config, policy.params, dtype=dtype)
    if dtype == "float16":
        again = safetensors_numpy.load_file(llama.parent / "again" / "model.safetensors")
        assert all(np.array_equal(again[name], half[name]) for name in again)
    model = transformers.AutoModelForCausalLM.from_pretrained(llama.parent / "again")
    assert str(model.dtype) == f"torch.{dtype}"


def test_a_process_reads_the_bytes_that_its_devices_hold_and_no_others(llama, monkeypatch):
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    count, fill = [0], tensor_files.StoredTensor._fill

    def counting(self, out, offset):
        count[0] += out.nbytes
        fill(self, out, offset)

    monkeypatch.setattr(tensor_files.StoredTensor, "_fill", counting)
    config = hf_weights.read_config(llama)
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2, devices=jax.devices()[:8])
    whole = policies.load_pretrained(llama)
    everything = count[0]
    assert everything == 4 * hf_weights.count_parameters(config)
    with contextlib.ExitStack() as stack:
        files = tensor_files.open_tensors(llama, stack)
        for tensor in hf_weights.layout(config):
            if tensor.path == ("embed",):
                continue  # a vocabulary of 61 divides over nothing
            where = sharding.shardings(decoder_of_60(config), mesh)
            value = whole.params
            for key in tensor.path:
                where, value = where[key], value[key]
            # one process of four, with two devices: those of one place on the data axis and one on the tensor axis
            for part in range(4):
                own = mesh.devices[part // 2, :, part % 2]
                held = {
                    tuple(s.indices(n)[:2] for s, n in zip(where.devices_indices_map(value.shape)[device], value.shape))
                    for device in own
                }
                count[0] = 0
                stored = [files[name] for name in tensor.names(config.layers)]
                for box, array in hf_weights.read_boxes(tensor, stored, sorted(held), np.float32).items():
                    np.testing.assert_array_equal(array, value[tuple(slice(*bounds) for bounds in box)])
                assert count[0] == 4 * sum(math.prod(b - a for a, b in box) for box in held), tensor.name


def decoder_of_60(config):
    return dataclasses.replace(config, vocab_size=60)


LOAD_ONE_GIGABYTE = """
import json, resource, sys
import jax, numpy as np
from synthrl_jax.policy import hf_weights, sharding

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

hf_weights.load(sys.argv[2], sharding.make_mesh(data=1, fsdp=4, tensor=2))  # what the first use of everything costs
before = peak()
config, params = hf_weights.load(sys.argv[1], sharding.make_mesh(data=1, fsdp=4, tensor=2), dtype=sys.argv[3])
jax.block_until_ready(params)
held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
print(json.dumps({"held": held, "beyond": peak() - before - held}))
"""


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.long)])
def test_loading_a_gigabyte_over_eight_devices_takes_little_beyond_the_arrays(tmp_path, dtype):
    sizes = {"small": (64, 1, 64, 128), "large": (32_000, 16, 2048, 5632)}
    for name, (vocabulary, layers, width, mlp) in sizes.items():
        config = decoder.DecoderConfig(
            vocab_size=vocabulary, layers=layers, width=width, mlp_width=mlp, heads=16, kv_heads=4
        )
        write_empty(tmp_path / name, config)
    assert (tmp_path / "large" / "model.safetensors").stat().st_size > 1 << 30
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-c", LOAD_ONE_GIGABYTE, tmp_path / "large", tmp_path / "small", dtype]
    out = subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT)
    found = json.loads(out.stdout or "{}")
    assert found, out.stderr
    assert found["held"] > (1 << 30 if dtype == "bfloat16" else 2 << 30)
    assert found["beyond"] < 100e6, found


def write_empty(directory, config):
    """A checkpoint of zeros, as a file with a hole: it takes no room on the disk."""
    directory.mkdir()
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for tensor in hf_weights.layout(config):
        for name in tensor.names(config.layers):
            end = offset + 2 * math.prod(tensor.shape)
            header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [offset, end]}
            offset = end
    text = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    (directory / "config.json").write_text(json.dumps(families.to_hf(config)))


def test_an_export_in_shards_is_what_transformers_loads(tmp_path, llama):
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    config, params = hf_weights.load(llama)
    hf_weights.save(tmp_path / "shards", config, params)
    hf_weights.save(tmp_path / "shards", config, params, shard_bytes=20_000)
    files = sorted((tmp_path / "shards").glob("*.safetensors"))
    assert len(files) > 3 and not (tmp_path / "shards" / "model.safetensors").exists()
    assert max(path.stat().st_size for path in files) < 22_000
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "shards")
    assert np.array_equal(torch_logits(back), torch_logits(model))
    hf_weights.save(tmp_path / "shards", config, params)
    assert [p.name for p in (tmp_path / "shards").glob("*.safetensors*")] == ["model.safetensors"]


def test_an_export_from_a_mesh_is_that_of_one_device(tmp_path):
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    config = decoder.DecoderConfig(vocab_size=64, width=32, layers=2, heads=4, kv_heads=2)
    params = decoder.init(config, jax.random.key(0))
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2, devices=jax.devices()[:8])
    hf_weights.save(tmp_path / "one", config, params)
    hf_weights.save(tmp_path / "mesh", config, jax.device_put(params, sharding.shardings(config, mesh)))
    one, other = (tmp_path / name / "model.safetensors" for name in ("one", "mesh"))
    assert one.read_bytes() == other.read_bytes()


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
