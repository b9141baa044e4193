"""Where the claims hold: the study's main methods with another teacher or other numbers of steps, one seed, on validation.

A teacher that leaves out nothing, a tenth or a half of the steps, and problems of 4 steps, with a curve of SFT at three sizes
and so with multiples; problems of 6 or 8 steps, methods against pi_sft at N = 1000 alone. All else as in
configs/arithmetic_scaling.py. Hardware: two CPU cores, two workers. Time, measured: 52 and 57 minutes for a teacher, beside
other work, and 16 to 32 for 4 steps, 20 for 6, 38 for 8.
Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_regimes.py --workers=2 --config.problems.settings.style=0.1
and --config.problems.settings.difficulty.steps="(6,6)" --config.sft_sizes="()"; then experiments.claims with the same flags and
--only-settings.
"""

from configs import arithmetic_scaling

METHODS = ("sft_continued", "sft_complete", "rft", "dpo_outcome", "dpo_per_step")
METHODS += ("rounds_fork", "rounds_outcome", "rounds_outcome_slow", "rounds_rft")


def get_config():
    c = arithmetic_scaling.get_config()
    c.name = "arithmetic_scaling_regimes"
    c.seeds, c.sft_sizes = (0,), (4000, 16000)
    entries = c.methods.to_dict()
    c.methods = {name: entries[name] for name in METHODS}
    return c
