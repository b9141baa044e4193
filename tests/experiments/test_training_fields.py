"""The config's `train` fields reach the trainer, and those at their defaults leave results made before them in place."""

import numpy as np
import pytest

from configs import base
from experiments import training
from experiments.graph import plan
from experiments.settings import UsageError, override
from synthrl_jax.credit.example import Example


def config(**fields):
    c = base.get_config()
    c.methods = {"rft": {}}
    c.lock()
    for name, text in fields.items():
        override(c, f"train.{name.replace('__', '.')}", text)
    return c


def test_fields_at_their_defaults_do_not_name_a_cell():
    (plain,) = [node for node in plan(config()) if node.stage == "sft"]
    assert not set(plain.settings["train"]) & set(training.DEFAULTS)
    assert not set(plain.settings["train"]["optimizer"]) & set(training.OPTIMIZER_DEFAULTS)
    (packed,) = [node for node in plan(config(pack="segments")) if node.stage == "sft"]
    assert packed.settings["train"] == plain.settings["train"] | {"pack": "segments"}


def test_they_reach_the_trainer_and_the_decoder():
    c = config(lora__rank="4", optimizer__name="adafactor", save_every="7", vocab_chunk="64", remat="full")
    (node,) = [node for node in plan(c) if node.stage == "sft"]
    settings = training.settings(node.settings["train"], "sft", 10)
    assert (settings.lora.rank, settings.optimizer.name, settings.save_every) == (4, "adafactor", 7)
    from synthrl_jax.policy.decoder import DecoderConfig

    tuned = training.decoder_config(DecoderConfig(vocab_size=8, width=8, layers=1, heads=1), node.settings["train"])
    assert (tuned.vocab_chunk, tuned.remat) == (64, "full")


@pytest.mark.parametrize(
    "wrong",
    [{"pack": "rows"}, {"lora__rank": "-1"}, {"attention": "flash"}, {"optimizer__bad": "ignore"}, {"keep": "0"}],
)
def test_wrong_ones_stop_the_run_before_it_starts(wrong):
    with pytest.raises(UsageError):
        plan(config(**wrong))


def test_trees_need_the_attention_that_has_them():
    with pytest.raises(UsageError, match="xla"):
        plan(config(pack="tree", attention="splash"))


def test_a_long_training_on_cpu_is_trimmed_and_a_short_or_packed_one_is_not():
    rows = [Example(np.arange(3 + 40 * (i % 7 == 3)), np.arange(3 + 40 * (i % 7 == 3)) > 1) for i in range(24)]
    train = {"batch": 4, "micro": 0, "epochs": 1.0}

    def lengths(**fields):
        batches = training.batches(rows, train | fields, 0, 0)
        return {batches.at(step)["tokens"].shape[-1] for step in range(6)}

    assert lengths(updates=training.TRIM_FROM) == {16, 48}
    assert lengths(updates=training.TRIM_FROM - 1) == lengths(updates=0) == {48}
    assert lengths(updates=training.TRIM_FROM, pack="segments") == {48}
