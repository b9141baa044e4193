"""Is SFT's curve at its best? SFT alone at every size with other learning rates and more epochs than the study's own grid.

The study chooses 5 or 10 epochs at a learning rate of 5e-4 for each size. Here, on the same problems (seed 0) and the same
validation set: half and twice that rate, by default, and more epochs by flag. A curve that could be lower would make every
multiple too large. Hardware: two CPU cores, two workers. Time: about an hour for each rate at 10 epochs, over all sizes.
Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_sft.py --workers=2
and the same with --config.rates="(5e-4,)" --config.epochs="(20.0,)"
"""

from configs import arithmetic_scaling


def get_config(rates=(2.5e-4, 1e-3), epochs=(10.0,)):
    c = arithmetic_scaling.get_config()
    c.name = "arithmetic_scaling_sft"
    c.seeds = (0,)
    c.sizes, c.sft_sizes, c.methods = (), (500, 1000, 2000, 4000, 8000, 16000), {}
    c.sft_by_size = {}
    c.sft.grid = {"optimizer": {"learning_rate": tuple(rates)}, "epochs": tuple(epochs)}
    return c
