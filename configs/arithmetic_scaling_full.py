"""Does the gain go on with more problems (C6)? The scaling study at N = 1000, 2000 and 4000.

SFT's curve reaches to 32,000: 16 and 8 times the larger sizes. Updates, and the slices of problems that rounds sample on, grow
with N; all else, and N = 1000 itself, is as in configs/arithmetic_scaling.py, in whose work directory it is run. Of the outcome
rounds' two rates it has the one that is better at N = 1000. One seed, on validation; more by --config.seeds. Hardware: two CPU
cores. Time beyond the main setting's, estimated from its cells: two and a half hours a seed, in as many runs as it takes; cells
that are in the results file are not made again.
Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_full.py --workers=2
"""

from configs import arithmetic_scaling


def get_config():
    c = arithmetic_scaling.get_config()
    c.name = "arithmetic_scaling_full"
    c.sizes = (1000, 2000, 4000)
    c.sft_sizes = (500, 8000, 16000, 32000)
    c.updates_at = 1000
    c.seeds = (0,)
    del c.methods["rounds_outcome"]
    return c
