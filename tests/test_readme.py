"""What the README shows runs."""

import re
import sys
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from synthrl_jax.credit.assignment import assign
from synthrl_jax.credit.example import StepValues
from synthrl_jax.problems.problem import load

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def mine():
    """The README's functions as the module `mine` that its config lines name."""
    module = types.ModuleType("mine")
    for block in BLOCKS:
        if "def " in block:
            exec(compile(block, "README.md", "exec"), module.__dict__)
    sys.modules["mine"] = module
    yield module
    del sys.modules["mine"]


def test_the_loss_is_zero_once_the_chosen_row_leads_by_the_margin(mine):
    batch = {"mask": jnp.ones((4, 3)), "ref_logprobs": jnp.zeros((4, 3))}
    logprobs = jnp.array([[0.0] * 3, [-1.0] * 3, [0.0] * 3, [0.0] * 3])
    loss = mine.hinge(logprobs, batch, margin=2.0)
    assert float(loss.total) == 2.0 and float(loss.weight) == 2.0


def test_the_pit_rule_is_taken_by_name(mine):
    values = StepValues("r", np.array([[0, 1], [1, 2], [2, 3]]), np.array([2, 6, 0]), np.array([8, 8, 8]), ((), (), ()))
    assert assign(values, 1.0, 1, "mine:last_drop").pit == 2


def test_the_problem_source_is_taken_by_name(mine):
    assert load("mine:successor", "test", seed=0, count=3)[2].answer == "20003"


def test_the_config_lines_plan(mine):
    from configs import quickstart
    from experiments.graph import plan

    c = quickstart.get_config()
    for line in next(block for block in BLOCKS if "c.methods" in block).strip().split("\n"):
        exec(line, {"c": c})
    labels = [node.label for node in plan(c)]
    assert "hinge N=1000 seed=0" in labels and "credit late N=1000 seed=0" in labels


def test_every_file_and_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z][a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"`((?:synthrl_jax|experiments|configs|tests)/[\w./-]*)`", README):
        assert (ROOT / path).exists(), path
    for image in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / image).exists(), image
