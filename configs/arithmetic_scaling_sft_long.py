"""Does SFT on 16,000 problems, the end of its curve, gain from twice the epochs? 20 at the two rates that are best with 10.

Every multiple above 8 hangs on that point. Seed 0, validation, as configs/arithmetic_scaling_sft.py, whose grid it goes on with;
with --config.problems.settings.difficulty.steps="(4,4)" for the regime of 4 steps. Hardware: two CPU cores. Time, measured:
33 minutes with two workers.
Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_sft_long.py --workers=2
"""

from configs import arithmetic_scaling_sft


def get_config():
    c = arithmetic_scaling_sft.get_config()
    c.name = "arithmetic_scaling_sft_long"
    c.sft_sizes = (16000,)
    long = tuple({"epochs": 20.0, "optimizer": {"learning_rate": rate}} for rate in (1e-3, 2e-3))
    c.sft_by_size = {"16000": {"grid": long}}
    return c
