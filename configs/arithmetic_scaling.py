"""Claims C1, C2, C4, C5, C6 and C8 on the embedded task: error against number of problems, and what each method makes of them.

SFT at seven sizes, each trained to its best validation point with learning rate and epochs of its own; then the methods at
N = 1000 on the same samples, the same number of pairs and updates, each with the same grid of beta, learning rate and NLL, the
best point by validation; then rounds of sampling and training with equal sampled tokens. Everything is read on validation
(2,048 problems) until the main setting is fixed: set `evaluate.split` to `test` (4,096 problems) only then, and say so here.

Paper: C2 about 2 x, C6 about 8 x, C5 standard DPO below SFT. Hardware: two CPU cores. Time: estimated from single cells of this
size at about a minute each, the first form (these fields) some hours. Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling.py --workers=2
"""

from configs import base

RATES = (2e-5, 1e-4, 5e-4)
ROUNDS = 6


def get_config():
    c = base.get_config()
    c.name = "arithmetic_scaling"
    c.results = "experiments/results/arithmetic_scaling.json"
    c.problems.settings = {"style": 0.25}
    c.sizes, c.sft_sizes = (1000,), (250, 500, 2000, 4000, 8000, 16000)
    c.seeds, c.tune_seeds = (0, 1), (0,)
    c.validation_problems, c.test_problems = 2048, 4096
    c.evaluate.split = "validation"
    c.sft.update({"epochs": 4.0, "looks": 6})
    c.sft.grid = {"optimizer": {"learning_rate": (5e-4, 1e-3, 2e-3)}}

    c.sample.n = 16
    c.monte_carlo.update({"negatives": 4, "positives": 1, "rollouts": 8})
    training = {"batch": 16, "updates": 150, "looks": 3, "optimizer": {"schedule": "constant", "learning_rate": 2e-4}}
    pairs = {**training, "loss_args": {"beta": 0.3, "nll": 0.0}}
    pairs["grid"] = {"loss_args": {"beta": (0.03, 0.3, 1.0), "nll": (0.0, 0.2)}, "optimizer": {"learning_rate": RATES}}
    rows = {**training, "grid": {"optimizer": {"learning_rate": RATES}}}
    weighted = {**training, "loss_args": {"beta": 0.3, "max_weight": 20.0}}
    weighted["grid"] = {"loss_args": {"beta": (0.03, 0.3, 1.0)}, "optimizer": {"learning_rate": RATES}}
    positives = {"epochs": 4.0, "looks": 4, "grid": {"optimizer": {"learning_rate": (5e-4, 1e-3, 2e-3)}}}
    c.methods = {
        "sft_continued": rows,
        "rft": positives,
        "dpo_outcome": pairs,
        "dpo_edit_distance": pairs,
        "dpo_per_step": pairs,
        "dpo_per_step_solution": pairs,
        "dpo_per_step_rest": {**pairs, "method": "dpo_per_step", "credit": {"rejected": "rest"}},
        "advantage_weighted": weighted,
        "advantage_filtered": rows,
    }

    # Rounds on a slice of the problems each; RFT, which needs no values, samples more for the same number of tokens.
    short = {"batch": 16, "updates": 60, "looks": 1, "loss_args": {"beta": 0.3, "nll": 0.2}}
    short["optimizer"] = {"schedule": "constant", "warmup": 0.0, "learning_rate": 2e-4}
    slices = {"count": ROUNDS, "problems": 300}
    grid = {"optimizer": {"learning_rate": (5e-5, 2e-4, 5e-4)}}
    c.methods.rounds_fork = {**short, "method": "dpo_per_step", "rounds": slices, "grid": grid}
    c.methods.rounds_outcome = {**short, "method": "dpo_outcome", "rounds": slices, "grid": grid}
    plain = {**short, "loss_args": {}, "start": "sft", "grid": grid}
    c.methods.rounds_rft = {**plain, "method": "rft", "rounds": slices | {"sample": {"n": 80}}}
    weights = {**plain, "loss_args": {"beta": 0.3, "max_weight": 20.0}}
    c.methods.rounds_weighted = {**weights, "method": "advantage_weighted", "rounds": slices}
    return c
