"""Is half of fork's rate better for rounds of outcome pairs than the two rates of the study? On seed 0 it was.

Five seeds, on validation, of one row of configs/arithmetic_scaling_rounds.py beside the study's own rounds. Run it in the work
directory of configs/arithmetic_scaling.py. Hardware: two CPU cores, two workers, 23 minutes as measured, pi_sft included.
Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_outcome_rate.py --workers=2; then
python -m experiments.claims --config=configs/arithmetic_scaling_outcome_rate.py --only-settings --table
"""

from configs import arithmetic_scaling, arithmetic_scaling_rounds

METHOD = "rounds_outcome_slow_1e-4"


def get_config():
    c = arithmetic_scaling_rounds.get_config()
    c.name = "arithmetic_scaling_outcome_rate"
    c.seeds = (0, 1, 2, 3, 4)
    main = arithmetic_scaling.get_config()
    c.sft_sizes = main.sft_sizes  # for the multiples
    names = ("rounds_outcome", "rounds_outcome_slow", "rounds_rft", "rounds_fork")
    c.methods = {METHOD: c.methods[METHOD].to_dict()} | {name: main.methods[name].to_dict() for name in names}
    c.titles.update({name: main.titles[name] for name in names})
    return c
