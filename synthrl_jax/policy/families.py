"""Hugging Face config.json to DecoderConfig and back: a family is configuration of the one decoder, never code."""

import math

from synthrl_jax.policy.decoder import DecoderConfig

# What each architecture adds to the Llama decoder. Llama 2, 3, 3.1, 3.2 and DeepSeek-Math are LlamaForCausalLM.
FAMILIES = {
    "LlamaForCausalLM": {},
    "MistralForCausalLM": {},
    "Qwen2ForCausalLM": {"qkv_bias": True},  # and Qwen 2.5
    "Qwen3ForCausalLM": {"qk_norm": True},
}

# What transformers takes for a field that config.json leaves out, where it is not Llama's value.
LEFT_OUT = {
    "MistralForCausalLM": {"num_key_value_heads": 8, "sliding_window": 4096, "max_position_embeddings": 131_072},
    "Qwen2ForCausalLM": {"num_key_value_heads": 32, "max_position_embeddings": 32_768},
    "Qwen3ForCausalLM": {"num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32_768},
}

# transformers chooses the class by model_type
MODEL_TYPES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
MODEL_TYPES["qwen3"] = "Qwen3ForCausalLM"

REQUIRED = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_width",
}

# fields with no say in the logits of a forward pass
IGNORED = {
    "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "initializer_range",
    "attention_dropout", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id", "pretraining_tp", "return_dict",
    "output_hidden_states", "output_attentions", "max_window_layers", "is_encoder_decoder", "chunk_size_feed_forward",
    "id2label", "label2id", "problem_type", "unsloth_version", "name_or_path", "_attn_implementation_autoset",
    "is_llama_config", "auto_map", "tokenizer_class", "torchscript", "unsloth_fixed", "attn_implementation",
    "_attn_implementation", "finetuning_task", "task_specific_params", "add_cross_attention", "is_decoder",
    "tie_encoder_decoder", "output_scores", "tf_legacy_loss", "use_bfloat16", "prefix", "sep_token_id",
    "decoder_start_token_id",
    # of generation, which older versions of transformers wrote here
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty",
    "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "forced_bos_token_id", "forced_eos_token_id",
    "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
    "return_dict_in_generate", "max_new_tokens", "cross_attention_hidden_size",
}  # fmt: skip

# fields that change the logits, with the only values that the decoder computes
ONLY = {
    "hidden_act": ("silu",),
    "mlp_bias": (False, None),
    "attention_bias": (False, None),
    "use_sliding_window": (False, None),
    "rope_interleaved": (False, None),
    "quantization_config": (None,),
    "partial_rotary_factor": (1.0, None),
    "pruned_heads": ({}, None),
}

# Mistral 7B v0.1 has a window of 4,096 of 32,768 positions: the policy is kept to its first window. No shorter one is of use.
SHORTEST_WINDOW = 2048


class UnsupportedModel(ValueError):
    """A config.json that the decoder would not reproduce; the message names the architecture or field."""


def from_hf(fields: dict) -> DecoderConfig:
    """DecoderConfig of a config.json's fields; UnsupportedModel names what the decoder would not honour."""
    if not isinstance(fields, dict):
        raise UnsupportedModel(f"config.json holds no fields but a {type(fields).__name__}")
    fields = dict(fields)
    architecture = _architecture(fields)
    config: dict = dict(FAMILIES[architecture])
    for theirs, ours in REQUIRED.items():
        if fields.get(theirs) is None:
            raise UnsupportedModel(f"config.json lacks {theirs}")
        config[ours] = _whole(fields, theirs, 1)
    for name, value in LEFT_OUT.get(architecture, {}).items():
        fields.setdefault(name, value)
    window_by_default = not architecture.startswith("Qwen")
    config["kv_heads"] = _whole(fields, "num_key_value_heads", 1, None) or config["heads"]
    config["head_dim"] = _whole(fields, "head_dim", 1, None) or 0
    config["norm_eps"] = _number(fields, "rms_norm_eps", 1e-6)
    config["tied"] = _flag(fields, "tie_word_embeddings")
    config["max_positions"] = _whole(fields, "max_position_embeddings", 1, 2048)
    config |= _rope(fields, config["max_positions"])
    window = _whole(fields, "sliding_window", 1, None)
    if window is not None and window < config["max_positions"] and fields.get("use_sliding_window", window_by_default):
        if window < SHORTEST_WINDOW:
            raise UnsupportedModel(f"sliding_window = {window} would hide tokens of longer texts: not supported")
        config["max_positions"] = window  # up to here a window hides nothing: the logits are the same
    kinds = fields.pop("layer_types", None) or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise UnsupportedModel("layer_types: only full_attention is supported")
    for name, value in fields.items():
        if name in ONLY:
            if value not in ONLY[name]:
                raise UnsupportedModel(f"{name} = {value!r} changes the logits and is not supported")
        elif name not in IGNORED:
            raise UnsupportedModel(f"config.json field {name} = {value!r} is unknown and may change the logits")
    return DecoderConfig(**config)


def _architecture(fields: dict) -> str:
    named, kind = fields.get("architectures"), fields.get("model_type")
    if not named and isinstance(kind, str) and kind in MODEL_TYPES:
        return MODEL_TYPES[kind]
    first = named[0] if isinstance(named, list) and named else named or "(none given)"
    if not isinstance(first, str) or first not in FAMILIES:
        raise UnsupportedModel(f"architecture {first} is not one of {', '.join(FAMILIES)}")
    if kind is not None and (not isinstance(kind, str) or MODEL_TYPES.get(kind) != first):
        raise UnsupportedModel(f"model_type = {kind!r} does not go with architecture {first}")
    return first


def _whole(fields: dict, name: str, least: int, missing=None):
    """Take out a whole number; `missing` where it is not there or null."""
    value = fields.pop(name, None)
    if value is None:
        return missing
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UnsupportedModel(f"{name} = {value!r} is no whole number from {least} on")
    return value


def _number(fields: dict, name: str, missing: float | None = None) -> float:
    """Take out a positive number; without `missing` it must be there."""
    value = fields.pop(name, None)
    value = missing if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UnsupportedModel(f"{name} = {value!r} is no positive number")
    return float(value)


def _flag(fields: dict, name: str) -> bool:
    value = fields.pop(name, None)
    if value not in (True, False, None):
        raise UnsupportedModel(f"{name} = {value!r} is neither true nor false")
    return bool(value)


def _rope(fields: dict, max_positions: int) -> dict:
    # transformers 5 writes rope_parameters, earlier ones rope_theta and rope_scaling
    rope: dict = {}
    for name in ("rope_parameters", "rope_scaling"):
        found = fields.pop(name, None) or {}
        if not isinstance(found, dict):
            raise UnsupportedModel(f"{name} = {found!r} holds no fields")
        rope |= found
    theta = _number(fields, "rope_theta", 10_000.0)
    theta = _number(rope, "rope_theta", theta)
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    if rope.get("partial_rotary_factor") == 1.0:
        del rope["partial_rotary_factor"]
    known = {"default": (), "linear": ("factor",)}
    known["llama3"] = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    if not isinstance(kind, str) or kind not in known:
        raise UnsupportedModel(f"rope_scaling of type {kind!r} is not supported")
    for name in rope:
        if name not in known[kind]:
            raise UnsupportedModel(f"rope_scaling field {name} is not supported for type {kind!r}")
    config = {"rope_theta": theta}
    if kind != "default":
        config |= {"rope_scaling": kind, "rope_factor": _number(rope, "factor")}
    if kind == "llama3":
        config["rope_low_freq_factor"] = _number(rope, "low_freq_factor")
        config["rope_high_freq_factor"] = _number(rope, "high_freq_factor")
        config["rope_original_positions"] = _whole(rope, "original_max_position_embeddings", 1, max_positions)
    return config


def to_hf(config: DecoderConfig) -> dict:
    """config.json's fields of a DecoderConfig; the architecture is the plainest one that computes the same."""
    if config.qkv_bias and config.qk_norm:
        raise UnsupportedModel("no Hugging Face family has both QKV bias without output bias and q/k norm")
    architecture = "Qwen3" if config.qk_norm else "Qwen2" if config.qkv_bias else "Llama"
    scaling = None
    if config.rope_scaling != "none":
        scaling = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling == "llama3":
        scaling["low_freq_factor"] = config.rope_low_freq_factor
        scaling["high_freq_factor"] = config.rope_high_freq_factor
        scaling["original_max_position_embeddings"] = config.rope_original_positions
    return {
        "architectures": [f"{architecture}ForCausalLM"],
        "model_type": architecture.lower(),
        **{theirs: getattr(config, ours) for theirs, ours in REQUIRED.items()},
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tied,
        "max_position_embeddings": config.max_positions,
        **({} if config.qkv_bias else {"attention_bias": False}),
    }
