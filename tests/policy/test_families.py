"""config.json as a hostile text: what cannot be honoured is named in one line, what does not matter is let through."""

import json

import pytest

from synthrl_jax import policy as policies
from synthrl_jax.policy import decoder, families, hf_weights

CONFIG = decoder.DecoderConfig(vocab_size=61, width=32, layers=1, heads=4)
FIELDS = families.to_hf(CONFIG)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"vocab_size": "61"}, "vocab_size"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"hidden_size": 32.5}, "hidden_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_attention_heads": [4]}, "num_attention_heads"),
        ({"intermediate_size": -1}, "intermediate_size"),
        ({"num_key_value_heads": 3}, "key/value heads"),
        ({"head_dim": 7}, "head_dim"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps"),
        ({"rms_norm_eps": 0}, "rms_norm_eps"),
        ({"rope_theta": "big"}, "rope_theta"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_scaling": LLAMA3 | {"factor": None}}, "factor"),
        ({"rope_scaling": LLAMA3 | {"attention_factor": 1.2}}, "attention_factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "full_attention"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"max_position_embeddings": "4k"}, "max_position_embeddings"),
        ({"sliding_window": "none"}, "sliding_window"),
        ({"layer_types": "full_attention"}, "layer_types"),
        ({"model_type": "gemma2"}, "gemma2"),
        ({"architectures": ["MistralForCausalLM"]}, "model_type"),
        ({"architectures": "GPT2LMHeadModel"}, "GPT2LMHeadModel"),
        ({"architectures": [["LlamaForCausalLM"]]}, "architecture"),
        ({"architectures": None, "model_type": "gpt2"}, "architecture"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"logit_scale": 0.1}, "logit_scale"),
        ({"query_pre_attn_scalar": 128}, "query_pre_attn_scalar"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_named_in_one_line(changes, named, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FIELDS | changes))
    with pytest.raises(hf_weights.WeightsError, match=named) as error:
        policies.load_pretrained(tmp_path)
    assert "config.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[]", "3", '"llama"', "null", "{", "\ufeff{}", "{}"])
def test_a_config_that_holds_no_fields_is_told(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        policies.load_pretrained(tmp_path)


def test_fields_without_a_say_in_the_logits_are_let_through():
    plain = {"max_length": 4096, "temperature": 0.6, "pruned_heads": {}, "attention_bias": False, "pad_token_id": -1}
    plain |= {"rope_scaling": None, "head_dim": None, "num_key_value_heads": None, "torch_dtype": "float16"}
    assert families.from_hf(FIELDS | plain) == CONFIG
    assert families.from_hf({k: v for k, v in FIELDS.items() if k != "architectures"}) == CONFIG


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_a_field_that_is_left_out_is_what_transformers_takes(kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 61, "hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 32}
    sizes["intermediate_size"] = 48
    found = families.from_hf({"architectures": [f"{kind}ForCausalLM"], **sizes})
    theirs = getattr(transformers, f"{kind}Config")(**sizes)
    assert (found.kv_heads, found.norm_eps, found.tied) == (
        theirs.num_key_value_heads,
        theirs.rms_norm_eps,
        theirs.tie_word_embeddings,
    )
    assert found.head_dim == getattr(theirs, "head_dim", None) or found.head_dim == 256 // 32
    assert found.rope_theta == theirs.rope_parameters["rope_theta"]
    window = getattr(theirs, "sliding_window", None) or theirs.max_position_embeddings
    assert found.max_positions == min(window, theirs.max_position_embeddings)
