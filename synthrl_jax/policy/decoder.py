"""The one decoder of every supported family: RMSNorm, RoPE, grouped-query attention, SwiGLU.

`Block` is a Flax Linen module that training runs under a scan over stacked layers and samplers run layer by layer:
what differs is the `attend` function it is given. Parameters are a plain nested dict of float32 arrays with the layers
stacked on a leading axis; every function here is pure.

Shape letters: B batch, T time, S cache slots, H query heads, K key/value heads, G = H / K, D width, d head, M MLP,
V vocabulary.
"""

import dataclasses
import functools
import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from synthrl_jax.policy import attention
from synthrl_jax.policy.attention import Attend, Tree, masked_attention
from synthrl_jax.policy.axes import constrain
from synthrl_jax.policy.projection import PRODUCT, project
from synthrl_jax.policy.vocabulary import chunked_logprobs

Params = dict[str, Any]

REMATS = ("none", "full", "dots")
ROPE_SCALINGS = ("none", "linear", "llama3")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Everything that decides the logits and how they are computed; hashable, so it can be a static jit argument."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int = 0  # 0: as many as heads
    head_dim: int = 0  # 0: width / heads
    mlp_width: int = 0  # 0: the multiple of 32 above 8/3 width
    rope_theta: float = 10_000.0
    rope_scaling: str = "none"
    rope_factor: float = 1.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original_positions: int = 8192
    norm_eps: float = 1e-5
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    max_positions: int = 4096
    dtype: str = "float32"  # of the computation; parameters of `init` are float32
    remat: str = "none"
    attention: str = "xla"  # of whole sequences: xla, cudnn (NVIDIA GPU, bfloat16) or splash (TPU)
    vocab_chunk: int = 0  # tokens of the vocabulary whose logits exist at once in `token_logprobs`; 0: all
    lora_scale: float = 1.0  # of low-rank adapters, where the parameters hold them
    scan: bool | None = None  # None: from 9 layers on; unrolled a step is faster (20 % at 4 layers), a compile longer

    def __post_init__(self):
        fill = object.__setattr__
        if not self.kv_heads:
            fill(self, "kv_heads", self.heads)
        if not self.head_dim:
            if self.width % self.heads:
                raise ValueError(f"width {self.width} does not divide over {self.heads} heads; give head_dim")
            fill(self, "head_dim", self.width // self.heads)
        if not self.mlp_width:
            fill(self, "mlp_width", -(-8 * self.width // 3 // 32) * 32)
        if self.scan is None:
            fill(self, "scan", self.layers > 8)
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads do not divide over {self.kv_heads} key/value heads")
        if self.head_dim % 2:
            raise ValueError(f"RoPE rotates pairs: head_dim must be even, not {self.head_dim}")
        for field, known in (
            ("remat", REMATS),
            ("attention", tuple(attention.ATTENTIONS)),
            ("rope_scaling", ROPE_SCALINGS),
        ):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}, not {getattr(self, field)!r}")
        if self.vocab_chunk < 0:
            raise ValueError(f"vocab_chunk must be 0 or more, not {self.vocab_chunk}")
        if jnp.dtype(self.dtype) not in (jnp.float32, jnp.bfloat16):
            raise ValueError(f"dtype must be float32 or bfloat16, not {self.dtype!r}")


def with_dtype(config: DecoderConfig, dtype=None) -> DecoderConfig:
    """The config computing in `dtype`: float32 on CPU and bfloat16 on accelerators where it is None."""
    if dtype is None:
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return dataclasses.replace(config, dtype=jnp.dtype(dtype).name)


class Norm(nn.Module):
    """RMSNorm in float32 over the last axis."""

    eps: float

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        x_f32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(x_f32 * x_f32, axis=-1, keepdims=True) + self.eps)
        return (x_f32 * inverse * scale).astype(x.dtype)


class Block(nn.Module):
    """One layer; `attend(q [B,T,H,d], k [B,T,K,d], v [B,T,K,d]) -> (o [B,T,H,d], extra)` decides what a query sees."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, rope: tuple[jax.Array, jax.Array], attend: Attend):
        c = self.config
        dtype = jnp.dtype(c.dtype)

        def weight(name, fan_in, *shape, scale=1.0):
            init = nn.initializers.normal(scale / np.sqrt(fan_in))
            return self.param(name, init, shape, jnp.float32).astype(dtype)

        def adapted(name, x, y, inputs=1):
            """y = x @ weight with the low-rank adapter's part added, where the parameters hold one (Hu et al. 2021)."""
            a, b = (self.get_variable("params", f"{name}_lora_{side}") for side in "ab")
            if a is None:
                return y
            return y + c.lora_scale * project(project(x, a.astype(dtype), inputs), b.astype(dtype))

        residual_scale = 1.0 / np.sqrt(2 * c.layers)
        with jax.named_scope("attention"):
            h_BxTxD = Norm(c.norm_eps, name="attention_norm")(x_BxTxD)
            q_BxTxHxd = project(h_BxTxD, weight("q", c.width, c.width, c.heads, c.head_dim))
            q_BxTxHxd = adapted("q", h_BxTxD, q_BxTxHxd)
            k_BxTxKxd = project(h_BxTxD, weight("k", c.width, c.width, c.kv_heads, c.head_dim))
            k_BxTxKxd = adapted("k", h_BxTxD, k_BxTxKxd)
            v_BxTxKxd = project(h_BxTxD, weight("v", c.width, c.width, c.kv_heads, c.head_dim))
            v_BxTxKxd = adapted("v", h_BxTxD, v_BxTxKxd)
            if c.qkv_bias:
                zeros = nn.initializers.zeros
                q_BxTxHxd += self.param("q_bias", zeros, (c.heads, c.head_dim), jnp.float32).astype(dtype)
                k_BxTxKxd += self.param("k_bias", zeros, (c.kv_heads, c.head_dim), jnp.float32).astype(dtype)
                v_BxTxKxd += self.param("v_bias", zeros, (c.kv_heads, c.head_dim), jnp.float32).astype(dtype)
            if c.qk_norm:
                q_BxTxHxd = Norm(c.norm_eps, name="q_norm")(q_BxTxHxd)
                k_BxTxKxd = Norm(c.norm_eps, name="k_norm")(k_BxTxKxd)
            q_BxTxHxd = constrain(rotate(q_BxTxHxd, rope), "batch", None, "heads", None)
            k_BxTxKxd = constrain(rotate(k_BxTxKxd, rope), "batch", None, "kv_heads", None)
            o_BxTxHxd, extra = attend(q_BxTxHxd, k_BxTxKxd, v_BxTxKxd)
            out = weight("o", c.heads * c.head_dim, c.heads, c.head_dim, c.width, scale=residual_scale)
            attended_BxTxD = project(o_BxTxHxd, out, 2)
            x_BxTxD = x_BxTxD + adapted("o", o_BxTxHxd, attended_BxTxD, inputs=2)
            x_BxTxD = constrain(x_BxTxD, "batch", None, None)
        with jax.named_scope("mlp"):
            h_BxTxD = Norm(c.norm_eps, name="mlp_norm")(x_BxTxD)
            gate_BxTxM = adapted("gate", h_BxTxD, project(h_BxTxD, weight("gate", c.width, c.width, c.mlp_width)))
            up_BxTxM = adapted("up", h_BxTxD, project(h_BxTxD, weight("up", c.width, c.width, c.mlp_width)))
            down = weight("down", c.mlp_width, c.mlp_width, c.width, scale=residual_scale)
            gated_BxTxM = constrain(nn.silu(gate_BxTxM) * up_BxTxM, "batch", None, "mlp")
            x_BxTxD = x_BxTxD + adapted("down", gated_BxTxM, project(gated_BxTxM, down))
            x_BxTxD = constrain(x_BxTxD, "batch", None, None)
        return x_BxTxD, extra


def rope_frequencies(config: DecoderConfig) -> np.ndarray:
    """Angle per position of each rotated pair [d/2], after the family's long-context scaling."""
    half = config.head_dim // 2
    inverse = 1.0 / config.rope_theta ** (np.arange(half, dtype=np.float64) / half)
    if config.rope_scaling == "linear":
        inverse /= config.rope_factor
    elif config.rope_scaling == "llama3":
        low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
        turns = config.rope_original_positions * inverse / (2 * np.pi)
        blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
        inverse = blend * inverse + (1 - blend) * inverse / config.rope_factor
    return inverse.astype(np.float32)


def rope_table(config: DecoderConfig, positions_BxT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """cos and sin [B, T, 1, d/2] of the positions, float32."""
    angles = positions_BxT[:, :, None, None].astype(jnp.float32) * rope_frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BxTxHxd: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotary embedding, halves convention (Su et al. 2021, as the Hugging Face checkpoints store it)."""
    cos, sin = rope
    first, second = jnp.split(x_BxTxHxd.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BxTxHxd.dtype)


@functools.partial(jax.jit, static_argnums=0)
def init(config: DecoderConfig, key: jax.Array) -> Params:
    """Random float32 parameters: normal with variance 1 / fan-in, residual outputs smaller by sqrt(2 layers)."""
    embed_key, unembed_key, layer_key = jax.random.split(key, 3)
    x = jnp.zeros((1, 1, config.width), config.dtype)
    rope = rope_table(config, jnp.zeros((1, 1), jnp.int32))

    def layer(layer_key):
        return Block(config).init(layer_key, x, rope, lambda q, k, v: (q, None))["params"]

    shape = (config.vocab_size, config.width)
    std = config.width**-0.5  # logits of unit variance where tied; RMSNorm makes the scale of the input side free
    params = {
        "embed": std * jax.random.normal(embed_key, shape, jnp.float32),
        "layers": jax.vmap(layer)(jax.random.split(layer_key, config.layers)),
        "final_norm": {"scale": jnp.ones((config.width,), jnp.float32)},
    }
    if not config.tied:
        params["unembed"] = std * jax.random.normal(unembed_key, shape[::-1], jnp.float32)
    return params


def shapes(config: DecoderConfig) -> Params:
    """Shape structs of the parameters, nothing computed."""
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


def _integers(name: str, array) -> jax.Array:
    array = jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, not {array.dtype}")
    return array.astype(jnp.int32)


def embed(config: DecoderConfig, params: Params, tokens_BxT: jax.Array) -> jax.Array:
    """Embeddings [B, T, D] in the compute type; a token outside of the vocabulary becomes NaN rather than another."""
    return jnp.take(params["embed"], tokens_BxT, axis=0, mode="fill").astype(config.dtype)


def causal_attend(config: DecoderConfig, T: int, segment_ids_BxT: jax.Array | None) -> Attend:
    """The `attend` of training: causal, and inside one segment where segment ids are given."""
    return attention.ATTENTIONS[config.attention](T, segment_ids_BxT)


def hidden(
    config: DecoderConfig, params: Params, tokens, positions=None, segment_ids=None, tree: Tree | None = None
) -> jax.Array:
    """Final normalised activations [B, T, D] of tokens [B, T]; arguments as for `logits`.

    tree: what each token sees where rows hold sequences that share prefixes (instead of segment ids; attention `xla`).
    """
    tokens_BxT = _integers("tokens", tokens)
    positions_BxT = jnp.arange(tokens_BxT.shape[1])[None] if positions is None else _integers("positions", positions)
    segment_ids_BxT = None if segment_ids is None else _integers("segment_ids", segment_ids)
    return _hidden(config, params, tokens_BxT, positions_BxT, segment_ids_BxT, tree)


@functools.partial(jax.jit, static_argnums=0, inline=True)  # called outside of jit, it compiles once, not op by op
def _hidden(config: DecoderConfig, params: Params, tokens_BxT, positions_BxT, segment_ids_BxT, tree) -> jax.Array:
    rope = rope_table(config, positions_BxT)
    attend = attention.tree(tree) if tree else causal_attend(config, tokens_BxT.shape[1], segment_ids_BxT)

    def layer(x_BxTxD, layer_params):
        return Block(config).apply({"params": layer_params}, x_BxTxD, rope, attend)

    if config.remat != "none":
        policy = {"full": None, "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT)}[config.remat]
        layer = jax.checkpoint(layer, policy=policy, prevent_cse=not config.scan)
    x_BxTxD = constrain(embed(config, params, tokens_BxT), "batch", None, None)
    x_BxTxD, _ = jax.lax.scan(layer, x_BxTxD, params["layers"], unroll=1 if config.scan else config.layers)
    return final_norm(config, params, x_BxTxD)


def final_norm(config: DecoderConfig, params: Params, x: jax.Array) -> jax.Array:
    """The norm between the last block and the unembedding."""
    return Norm(config.norm_eps).apply({"params": params["final_norm"]}, x)


def unembed(config: DecoderConfig, params: Params, x: jax.Array) -> jax.Array:
    """Float32 logits [..., V] of normalised activations [..., D]."""
    matrix_DxV = unembedding(config, params).astype(x.dtype)
    return jnp.einsum("...D,DV->...V", x, matrix_DxV, preferred_element_type=jnp.float32)


def unembedding(config: DecoderConfig, params: Params) -> jax.Array:
    """The matrix [D, V] from activations to logits."""
    return params["embed"].T if config.tied else params["unembed"]


def logits(config: DecoderConfig, params: Params, tokens, positions=None, segment_ids=None) -> jax.Array:
    """Next-token logits [B, T, V], float32, of tokens [B, T] of any integer type.

    Attention is causal. positions [B, T] default to 0..T-1. segment_ids [B, T]: a token sees only tokens of its own
    segment (packing: give positions that restart with each segment); None is one segment. Id 0 marks padding: such
    tokens see only each other, and their logits mean nothing. Float tokens are a TypeError.
    """
    return unembed(config, params, hidden(config, params, tokens, positions, segment_ids))


def token_logprobs(config: DecoderConfig, params: Params, tokens, positions=None, segment_ids=None, entropy=False):
    """log p(token t | tokens before t) [B, T], 0 at t = 0 and at each first token of a segment.

    With `entropy` also the entropy (nats) of the distribution that token t was predicted from, 0 at the same places.
    """
    tokens_BxT = _integers("tokens", tokens)
    same_BxT = True if segment_ids is None else jnp.asarray(segment_ids)[:, 1:] == jnp.asarray(segment_ids)[:, :-1]
    hidden_BxTxD = hidden(config, params, tokens_BxT, positions, segment_ids)
    found = next_logprobs(config, params, hidden_BxTxD, tokens_BxT[:, 1:], entropy)

    def shifted(values_BxT):
        return jnp.pad(jnp.where(same_BxT, values_BxT, 0.0), ((0, 0), (1, 0)))

    return jax.tree.map(shifted, found)


def picked_logprobs(
    config: DecoderConfig,
    params: Params,
    tokens,
    sources,
    targets,
    *,
    positions,
    segment_ids=None,
    tree: Tree | None = None,
    entropy=False,
):
    """log p(targets [B, Q] | what the token at index sources [B, Q] of its row has seen) [B, Q], of packed rows.

    Only these places meet the unembedding. With `entropy` also the entropy (nats) of each distribution.
    """
    hidden_BxTxD = hidden(config, params, tokens, positions, segment_ids, tree)
    hidden_BxQxD = jnp.take_along_axis(hidden_BxTxD, sources[:, :, None], axis=1, mode="clip")
    hidden_BxQxD = constrain(hidden_BxQxD, "batch", None, None)
    return next_logprobs(config, params, hidden_BxQxD, targets, entropy)


def next_logprobs(config: DecoderConfig, params: Params, hidden_BxTxD, targets_BxQ, entropy: bool = False):
    """log p(targets) [B, Q] from the first Q activations of each row, and the entropies if wanted."""
    Q = targets_BxQ.shape[1]
    if config.vocab_chunk:
        found = chunked_logprobs(
            hidden_BxTxD[:, :Q], unembedding(config, params), targets_BxQ, min(config.vocab_chunk, config.vocab_size)
        )
        return found if entropy else found[0]
    logits_BxQxV = unembed(config, params, hidden_BxTxD)[:, :Q]
    log_z_BxQ = jax.nn.logsumexp(logits_BxQxV, axis=-1)
    picked_BxQ = jnp.take_along_axis(logits_BxQxV, targets_BxQ[..., None], axis=-1)[..., 0]
    if not entropy:
        return picked_BxQ - log_z_BxQ
    mean_logit_BxQ = jnp.sum(jax.nn.softmax(logits_BxQxV, axis=-1) * logits_BxQxV, axis=-1)
    return picked_BxQ - log_z_BxQ, log_z_BxQ - mean_logit_BxQ


@functools.partial(jax.jit, static_argnums=0)
def unstack(config: DecoderConfig, params: Params) -> Params:
    """Parameters for decoding: a tuple of layers in the compute type, cast and sliced once for a whole phase."""
    cast = functools.partial(jax.tree.map, lambda x: x.astype(config.dtype))
    layers = tuple(cast(jax.tree.map(operator.itemgetter(i), params["layers"])) for i in range(config.layers))
    return cast({name: value for name, value in params.items() if name != "layers"}) | {"layers": layers}


def run_layers(config: DecoderConfig, weights: Params, tokens_BxT, positions_BxT, attends: list[Attend]):
    """Normalised activations [B, T, D] with one `attend` per layer of `unstack`ed weights, and each layer's extra."""
    rope = rope_table(config, positions_BxT)
    x_BxTxD, extras = embed(config, weights, tokens_BxT), []
    for layer, attend in zip(weights["layers"], attends, strict=True):
        x_BxTxD, extra = Block(config).apply({"params": layer}, x_BxTxD, rope, attend)
        extras.append(extra)
    return final_norm(config, weights, x_BxTxD), tuple(extras)


def empty_cache(config: DecoderConfig, rows: int, slots: int):
    """Zero K and V per layer, ([B, K, S, d], [B, K, S, d]); stacked over layers a decode step would copy them whole."""
    shape = (rows, config.kv_heads, slots, config.head_dim)
    return tuple((jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype)) for _ in range(config.layers))


def extend(config: DecoderConfig, weights: Params, tokens_BxT, positions_BxT, cache, cursor, first_B):
    """Run T more tokens of every row against the cache: (normalised activations [B, T, D], new cache).

    Token t of each row is written to slot cursor + t (one cursor for all rows) and sees the slots first..cursor + t of
    its row, so rows of unequal length end at the same slot: pad on the left and say where each row begins.
    """
    T, S = tokens_BxT.shape[1], cache[0][0].shape[2]
    slots_S = jnp.arange(S)
    seen_TxS = slots_S <= cursor + jnp.arange(T)[:, None]
    mask_BxKxGxTxS = (seen_TxS & (slots_S >= first_B[:, None, None]))[:, None, None]

    def attend_with(keys_BxKxSxd, values_BxKxSxd):
        def attend(q_BxTxHxd, k_BxTxKxd, v_BxTxKxd):
            start = (0, 0, cursor, 0)
            keys = jax.lax.dynamic_update_slice(keys_BxKxSxd, k_BxTxKxd.transpose(0, 2, 1, 3), start)
            values = jax.lax.dynamic_update_slice(values_BxKxSxd, v_BxTxKxd.transpose(0, 2, 1, 3), start)
            return masked_attention(q_BxTxHxd, keys, values, mask_BxKxGxTxS), (keys, values)

        return attend

    return run_layers(config, weights, tokens_BxT, positions_BxT, [attend_with(*layer) for layer in cache])
