"""The `train` fields of a config that came after the first results, and all of them as what the trainer takes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the rooms import jax, which reading a config need not
    from synthrl_jax.credit.example import Example
    from synthrl_jax.learning.batches import Batches
    from synthrl_jax.learning.trainer import TrainSettings
    from synthrl_jax.policy.decoder import DecoderConfig

# pack: none, segments or tree, into rows of about pack_length tokens (0: the longest row); lora.rank 0: all parameters are
# trained; vocab_chunk 0: all logits at once; remat: none, dots or full; attention: xla, cudnn or splash; save_every: updates
# between checkpoints beside those at looks; keep: how many; profile: updates that jax.profiler traces.
DEFAULTS: dict[str, Any] = {
    "pack": "none",
    "pack_length": 0,
    "lora": {"rank": 0, "alpha": 16.0, "targets": ("q", "k", "v", "o", "gate", "up", "down")},
    "vocab_chunk": 0,
    "remat": "none",
    "attention": "xla",
    "save_every": 0,
    "keep": 2,
    "profile": 0,
}
# On CPU rows are padded to the longest of their step only from so many updates on: on the study's SFT 1.35 times as fast a step,
# for a program to compile (some seconds) for each of about three lengths.
TRIM_FROM = 1000
OPTIMIZER_DEFAULTS: dict[str, Any] = {"name": "adamw", "bad": "stop", "spike": 0.0}


def without_defaults(train: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that name a cell: those above count only where they are not at their default, so that results made before a
    field existed stay."""
    kept = {k: v for k, v in train.items() if k not in DEFAULTS or _plain(v) != _plain(DEFAULTS[k])}
    optimizer = {
        k: v for k, v in train["optimizer"].items() if k not in OPTIMIZER_DEFAULTS or v != OPTIMIZER_DEFAULTS[k]
    }
    return kept | {"optimizer": optimizer}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def decoder_config(config: "DecoderConfig", train: Mapping[str, Any]) -> "DecoderConfig":
    """How the policy computes while it is trained."""
    fields = {name: (DEFAULTS | dict(train))[name] for name in ("vocab_chunk", "remat", "attention")}
    return dataclasses.replace(config, **fields)


def batches(rows: Sequence["Example"], train: Mapping[str, Any], seed: int, pad_id: int) -> "Batches":
    """The rows in batches by the config's fields, a long training's trimmed where a compile is cheap."""
    import jax

    from synthrl_jax.learning.batches import ROUND, Batches

    t = DEFAULTS | dict(train)
    multiple = 128 if t["attention"] == "splash" else ROUND
    found = Batches(
        rows,
        batch=t["batch"],
        micro=t["micro"] or None,
        seed=seed,
        pad_id=pad_id,
        pack=t["pack"],
        pack_length=t["pack_length"],
        multiple=multiple,
    )
    found.trim = jax.default_backend() == "cpu" and (t["updates"] or found.updates(t["epochs"])) >= TRIM_FROM
    return found


def settings(train: Mapping[str, Any], loss: str, updates: int) -> "TrainSettings":
    """The trainer's settings by the config's fields."""
    from synthrl_jax.learning.lora import LoraSettings
    from synthrl_jax.learning.optimizer import OptimizerSettings
    from synthrl_jax.learning.trainer import TrainSettings

    t = DEFAULTS | dict(train)
    lora = dict(t["lora"])
    return TrainSettings(
        loss=loss,
        loss_args=dict(t["loss_args"]),
        updates=updates,
        looks=min(t["looks"], updates),
        patience=t["patience"],
        optimizer=OptimizerSettings(**t["optimizer"]),
        lora=LoraSettings(rank=lora["rank"], alpha=lora["alpha"], targets=tuple(lora["targets"])),
        save_every=t["save_every"],
        keep=t["keep"],
        profile=t["profile"],
    )


def check(train: Mapping[str, Any]) -> None:
    """ValueError or TypeError for fields that do not fit."""
    from synthrl_jax.policy.decoder import DecoderConfig

    t = DEFAULTS | dict(train)
    settings(train | {"loss_args": {}}, "sft", 1)
    DecoderConfig(vocab_size=2, width=2, layers=1, heads=1, **{k: t[k] for k in ("vocab_chunk", "remat", "attention")})
    if t["pack"] not in ("none", "segments", "tree"):
        raise ValueError(f"train.pack={t['pack']!r}: none, segments or tree")
    if t["pack"] == "tree" and t["attention"] != "xla":
        raise ValueError(f"train.pack=tree needs train.attention=xla, not {t['attention']}")
