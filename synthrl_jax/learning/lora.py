"""Low-rank adapters (Hu et al. 2021): W + scale * A B with only A and B trained, and the merge for export.

Adapters are entries `<name>_lora_a [layers, inputs..., rank]` and `<name>_lora_b [layers, rank, outputs...]` beside the
matrices of a decoder's stacked layers; the decoder adds their part where it finds them.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from synthrl_jax.policy import decoder
from synthrl_jax.policy.sharding import CONTRACTED


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """rank: 0 trains all parameters; alpha: the scale is alpha / rank; targets: matrices of each layer."""

    rank: int = 0
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q", "k", "v", "o", "gate", "up", "down")

    def __post_init__(self):
        if self.rank < 0 or self.alpha <= 0:
            raise ValueError(f"lora: rank={self.rank} and alpha={self.alpha}: neither may be negative, alpha not 0")
        if unknown := set(self.targets) - set(CONTRACTED):
            raise ValueError(f"lora: no targets {', '.join(sorted(unknown))}; use {', '.join(CONTRACTED)}")
        if self.rank and not self.targets:
            raise ValueError("lora: a rank but no targets: nothing would be trained")

    def config(self, config: decoder.DecoderConfig) -> decoder.DecoderConfig:
        """The decoder's config with the adapters' scale."""
        return dataclasses.replace(config, lora_scale=self.alpha / self.rank) if self.rank else config


def init(params: decoder.Params, settings: LoraSettings, key: jax.Array) -> decoder.Params:
    """New adapters of float32, {"layers": {...}}: A random with variance 1 / inputs, B zero, so that nothing changes yet."""
    adapters = {}
    for number, name in enumerate(settings.targets):
        matrix, inputs = params["layers"][name], CONTRACTED[name]
        first, last = matrix.shape[1 : 1 + inputs], matrix.shape[1 + inputs :]
        shape = (matrix.shape[0], *first, settings.rank)
        noise = jax.random.normal(jax.random.fold_in(key, number), shape, jnp.float32)
        adapters[f"{name}_lora_a"] = noise / np.sqrt(np.prod(first))
        adapters[f"{name}_lora_b"] = jnp.zeros((matrix.shape[0], settings.rank, *last), jnp.float32)
    return {"layers": adapters}


def join(params: decoder.Params, adapters: decoder.Params) -> decoder.Params:
    """Parameters with the adapters beside their matrices, as the decoder reads them."""
    return params | {"layers": params["layers"] | adapters["layers"]}


def merge(config: decoder.DecoderConfig, params: decoder.Params) -> decoder.Params:
    """Plain parameters of the same function: each adapter multiplied out into its matrix, which becomes float32.

    Rounded to bfloat16 a merged weight is off by up to 2^-9 of itself, which may be more than a small adapter's part.
    """
    layers = dict(params["layers"])
    for name in names(layers):
        a, b = (layers.pop(f"{name}_lora_{side}").astype(jnp.float32) for side in "ab")
        part = jax.vmap(lambda a, b: jnp.tensordot(a, b, 1, precision="highest"))(a, b)
        layers[name] = layers[name].astype(jnp.float32) + config.lora_scale * part
    return params | {"layers": layers}


def names(layers: decoder.Params) -> Sequence[str]:
    """The matrices that have an adapter."""
    return [name.removesuffix("_lora_a") for name in layers if name.endswith("_lora_a")]
