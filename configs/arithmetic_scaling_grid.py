"""The grid of the scaling study at N = 1000, one seed, on validation: is each method at its best, and how robust is it? (C5)

Every preference method gets the same grid of learning rate, beta and NLL, the same pairs, updates and looks; advantage
weighting its rate and beta, the others their rates; `sft_tuned` is SFT with its learning rate and epochs. The whole grid is
drawn as heat maps beside the best cell.
Hardware: two CPU cores. Time, measured beside other work: somewhat over two hours with two workers.
Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_grid.py --workers=2
"""

from configs import arithmetic_scaling

RATES = (2e-5, 5e-5, 2e-4, 5e-4, 1e-3)
BETAS = (0.03, 0.1, 0.3, 1.0)


def get_config():
    c = arithmetic_scaling.get_config()
    c.name = "arithmetic_scaling_grid"
    c.seeds = (0,)
    c.main_method, c.main_outcome = "dpo_per_step", "dpo_outcome"  # no rounds here
    rates = {"optimizer": {"learning_rate": RATES}}
    pairs = {"loss_args": {"beta": BETAS, "nll": (0.0, 0.2)}, **rates}
    entries = c.methods.to_dict()
    grids = dict.fromkeys(arithmetic_scaling.PREFERENCE, pairs)
    grids |= {"advantage_weighted": {"loss_args": {"beta": BETAS}, **rates}}
    grids |= dict.fromkeys(("sft_continued", "advantage_filtered"), rates)
    grids["rft"] = {"optimizer": {"learning_rate": (5e-4, 1e-3, 2e-3)}}
    entries["sft_tuned"] = {"method": "sft_continued", "start": "base", "looks": 6}
    grids["sft_tuned"] = {**grids["rft"], "epochs": (3.0, 5.0, 8.0)}
    c.methods = {name: {**entries[name], "grid": grid} for name, grid in grids.items()}
    return c
