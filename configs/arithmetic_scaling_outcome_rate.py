"""Is half of fork's rate better for rounds of outcome pairs than the two rates of the study? On seed 0 it was.

Five seeds, on validation, of one row of configs/arithmetic_scaling_rounds.py. Run it in that config's work directory.
Hardware: two CPU cores, two workers. Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_outcome_rate.py --workers=2; then
python -m experiments.claims --config=configs/arithmetic_scaling_outcome_rate.py --only-settings --table
"""

from configs import arithmetic_scaling_rounds

METHOD = "rounds_outcome_slow_1e-4"


def get_config():
    c = arithmetic_scaling_rounds.get_config()
    c.name = "arithmetic_scaling_outcome_rate"
    c.seeds = (0, 1, 2, 3, 4)
    c.methods = {METHOD: c.methods[METHOD].to_dict()}
    return c
