"""Is SFT's curve at its best? SFT alone, at every size with other learning rates and numbers of epochs.

The same problems (seed 0) and validation set as the study's, which takes its rates at 8,000 and 16,000 from here: a curve that
could be lower makes every multiple too large, as one rate for all sizes did (experiments/study.md, "SFT at its best"). A look
at every sixth of the training; a setting counts as its best look. Hardware: two CPU cores. Time, measured beside other work,
with two workers: two and a half hours, two of them for the two largest sizes.
Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_sft.py --workers=2
"""

from configs import arithmetic_scaling

# Learning rate and epochs. Up to 4,000 these differ by little more than noise; beyond, higher rates are better.
SMALL = ((2.5e-4, 10.0), (5e-4, 5.0), (5e-4, 10.0), (1e-3, 5.0), (1e-3, 10.0))
LARGE = {8000: (*SMALL, (5e-4, 20.0), (2e-3, 10.0)), 16000: (*SMALL[1:], (5e-4, 20.0), (2e-3, 10.0), (4e-3, 10.0))}


def get_config():
    c = arithmetic_scaling.get_config()
    c.name = "arithmetic_scaling_sft"
    c.seeds = (0,)
    c.sizes, c.sft_sizes, c.methods = (), (500, 1000, 2000, 4000, 8000, 16000), {}
    with c.sft.ignore_type():  # a grid as a list of its points
        c.sft.grid = _grid(SMALL)
    c.sft_by_size = {str(size): {"grid": _grid(settings)} for size, settings in LARGE.items()}
    return c


def _grid(settings):
    return tuple({"epochs": epochs, "optimizer": {"learning_rate": rate}} for rate, epochs in settings)
