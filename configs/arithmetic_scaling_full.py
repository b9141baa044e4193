"""The scaling study in full: N = 1000, 2000 and 4000 (C6: the gain goes on with more problems), five seeds in the main setting.

SFT's curve reaches to 64,000, 16 times the largest N at which methods are compared. Settings as in
configs/arithmetic_scaling.py. Hardware: two CPU cores. Time, estimated from single cells: a day and a half, in as many runs as
it takes; cells that are in the results file are not made again. Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_full.py --workers=2
"""

from configs import arithmetic_scaling


def get_config():
    c = arithmetic_scaling.get_config()
    c.name = "arithmetic_scaling_full"
    c.sizes = (1000, 2000, 4000)
    c.sft_sizes = (500, 8000, 16000, 32000, 64000)
    c.seeds = (0, 1, 2, 3, 4)
    return c
