"""The stages: functions (settings, inputs, out, seed, label) that read earlier cells and write one of their own.

The integer is a stage's version: raise it when the stage's result changes, and its cells are made anew.
"""

import importlib
from collections.abc import Callable

STAGES: dict[str, tuple[str, int]] = {
    "data": ("experiments.stages.data:problems", 2),
    "base": ("experiments.stages.base:base", 1),
    "sft": ("experiments.stages.train:sft", 2),
    "sample": ("experiments.stages.sampling:sample", 1),
    "grade": ("experiments.stages.sampling:grade", 2),
    "positives": ("experiments.stages.credit:positives", 1),
    "values": ("experiments.stages.values:values", 2),
    "credit": ("experiments.stages.credit:credit", 2),
    "train": ("experiments.stages.train:method", 2),
    "slice": ("experiments.stages.rounds:slice_of_problems", 1),
    "best": ("experiments.stages.rounds:best", 1),
    "choose": ("experiments.stages.rounds:choose", 1),
    "recorded": ("experiments.stages.rounds:recorded", 1),
    "drift": ("experiments.stages.drift:drift", 1),
    "evaluate": ("experiments.stages.evaluate:evaluate", 2),
}


def find_stage(name: str) -> tuple[Callable, int]:
    """A stage's function and version; imported only here, so that planning a run costs no jax."""
    place, version = STAGES[name]
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(module), function), version
