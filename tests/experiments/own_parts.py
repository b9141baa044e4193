"""What a user might bring from outside of the package: a loss, a pit rule, a method, a problem source."""

import numpy as np

from synthrl_jax.learning.losses import Loss
from synthrl_jax.problems.problem import Problem


def hinge(logprobs, batch, *, margin):
    """A preference loss: how far the chosen row's log-ratio is from leading by `margin`."""
    ratio = (batch["mask"] * (logprobs - batch["ref_logprobs"])).sum(-1)
    lead = ratio[0::2] - ratio[1::2]
    pairs = np.float32(len(lead))
    return Loss((margin - lead).clip(0).sum(), pairs, {"lead": (lead.sum(), pairs)})


def last_drop(q, a, mask):
    """The last step whose advantage is negative."""
    found = np.flatnonzero((a < 0) & mask)
    return int(found[-1]) if len(found) else -1


def shortest_positives(artifacts, *, count):
    """Rows of the `count` shortest correct responses."""
    from synthrl_jax.credit.example import response_example

    return [response_example(r) for r in sorted(artifacts.positives(), key=lambda r: (len(r.tokens), r.id))[:count]]


def counting(split, *, seed, count, largest):
    """A problem source: the successor of a number."""
    rng = np.random.default_rng([seed, {"train": 0, "validation": 1, "test": 2}[split]])
    numbers = rng.integers(0, largest, count)
    return [
        Problem(f"count-{split}-{seed}-{i}", f"What is {n} + 1?", str(n + 1), f"#### {n + 1}")
        for i, n in enumerate(numbers)
    ]
