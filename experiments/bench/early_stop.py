"""What stopping a step's rollouts early saves, and what it biases and changes, by simulation of wrong responses.

    python -m experiments.bench.early_stop [--responses=2000] [--budget=20] [--looks=5,8,12] [--k=5] [--json FILE]

A response has 9 steps. From V(x) on, each step multiplies the rate of right rollouts by a factor near 1, until one step (the
pit, uniformly drawn) loses the answer for good in half of the responses, or divides the rate by ten; the last step is wrong.
All rules see the same rollouts. bias: mean of Q's estimate less the truth; the budget's own is unbiased.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

from synthrl_jax.credit import early_stop
from synthrl_jax.credit.values import best_of_k_value

STEPS = 9


def simulate(count: int, budget: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(V(x)'s rate [N], rates [N, S], whether each rollout is right [N, S, budget])."""
    rng = np.random.default_rng(seed)
    start = rng.beta(1.0, 1.5, count)
    factors = np.exp(0.15 * rng.standard_normal((count, STEPS)))
    pit = rng.integers(0, STEPS - 1, count)
    factors[np.arange(count), pit] = np.where(rng.random(count) < 0.5, 0.0, 0.1)
    rates = np.clip(start[:, None] * np.cumprod(factors, axis=1), 0.0, 1.0)
    rates[:, -1] = 0.0
    return start, rates, rng.random((count, STEPS, budget)) < rates[:, :, None]


def run(rule: str, rounds: list[int], k: int, start: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Rollouts drawn for each step [N, S] under a rule; "" draws the budget."""
    attempts = np.full(right.shape[:2], rounds[0] if rule else rounds[-1])
    attempts[:, -1] = rounds[-1]
    for before, after in itertools.pairwise(rounds) if rule else ():
        for response, drawn in enumerate(attempts):
            successes = [r[:n].sum() for r, n in zip(right[response], drawn)]
            value = 1 - (1 - start[response]) ** k
            more = early_stop.open_steps(successes, drawn, k, rounds[-1], rule, value)
            drawn[more & (drawn == before)] = after
    return attempts


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=2000)
    parser.add_argument("--budget", type=int, default=20)
    parser.add_argument("--looks", type=lambda text: [int(n) for n in text.split(",")], default=[5, 8, 12])
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    try:
        rounds = early_stop.rounds_of(options.looks, options.budget, options.k, early_stop.RULES[0])
    except ValueError as error:
        parser.error(str(error))
    start, rates, right = simulate(options.responses, options.budget, options.seed)
    truth = 1 - (1 - rates[:, :-1]) ** options.k
    settings = {name: getattr(options, name) for name in ("responses", "budget", "looks", "k", "seed")}
    rows, fixed = [], {}
    for rule in ("", *early_stop.RULES):
        attempts = run(rule, rounds, options.k, start, right)
        successes = (right & (np.arange(options.budget) < attempts[:, :, None])).sum(axis=-1)
        q = best_of_k_value(successes, attempts, options.k)
        first = np.concatenate([(1 - (1 - start[:, None]) ** options.k), q[:, :-1]], axis=1)
        found = {"pit": q.argmin(axis=1), "sign": q > first}
        fixed = fixed or found
        error = q[:, :-1] - truth
        row = {"rule": rule or "fixed", "rollouts_per_step": attempts[:, :-1].mean(), "bias": error.mean()}
        row |= {"mean_square_error": (error**2).mean()}
        for low, high in ((0.0, 0.25), (0.25, 0.75), (0.75, 1.0)):
            inside = (truth >= low) & (truth <= high)
            row[f"bias_q_{low:g}_{high:g}"] = error[inside].mean()
        row |= {"same_pit_as_fixed": (found["pit"] == fixed["pit"]).mean()}
        row |= {"same_signs_as_fixed": (found["sign"] == fixed["sign"]).mean()}
        rows.append({name: round(float(v), 4) if name != "rule" else v for name, v in row.items()} | settings)
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items() if name not in settings))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
