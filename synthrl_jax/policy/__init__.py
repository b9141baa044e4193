"""Decoder, weights and tokenizers: `load_pretrained(path) -> Policy(config, params, tokenizer)`."""

import importlib

_HOMES = {
    "Policy": "checkpoint",
    "load_pretrained": "checkpoint",
    "save_checkpoint": "checkpoint",
    "checksum": "checkpoint",
    "DecoderConfig": "decoder",
}
_MODULES = ("checkpoint", "decoder", "families", "hf_weights", "sharding", "tokenizer")


def __getattr__(name):
    # importing the room stays cheap: jax and flax load with the first use
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*_HOMES, *_MODULES])
