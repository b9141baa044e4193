"""The whole method on the embedded task, small: one seed, one teacher style, a budget for two CPU cores.

Claims C2, C5, C6 and C8 at a single size and seed: a look at every part of the machine, not a measurement of the claims.
Command: make quickstart, or
    python -m experiments.run --config=configs/quickstart.py --workdir=runs/quickstart --workers=2
"""

from configs import base


def get_config():
    c = base.get_config()
    c.name = "quickstart"
    c.problems.settings = {"style": 0.1}
    c.sizes, c.sft_sizes = (1000,), (250, 4000)
    c.sft.epochs = 5.0
    c.validation_problems = 512
    c.test_problems = 1024
    c.sample.n = 16
    c.monte_carlo.negatives = 3
    # The same settings for every preference method. At this learning rate pairs of whole responses lose what SFT had learnt and
    # pairs at the pit do not; `gentle` shows that a smaller one spares them (found on validation).
    rows = {"batch": 16, "updates": 240, "looks": 4, "optimizer": {"learning_rate": 5e-4}}
    dpo = rows | {"loss_args": {"beta": 0.3, "nll": 0.2}}
    c.methods = {
        "sft_continued": rows,
        "rft": {"epochs": 5.0, "looks": 5},
        "dpo_outcome": dpo,
        "dpo_outcome_gentle": dpo | {"method": "dpo_outcome", "optimizer": {"learning_rate": 1e-4}},
        "dpo_edit_distance": dpo,
        "dpo_per_step": dpo,
        "dpo_per_step_solution": dpo,
        "advantage_weighted": rows | {"loss_args": {"beta": 0.3, "max_weight": 20.0}},
        "advantage_filtered": rows,
    }
    return c
