"""With problems of 4 steps, where fork pairs in rounds pass 8: do they owe it to the pits? Controls beside the main rounds.

The oracle's pits and random ones, the whole rest as the rejected side (at the lower rate, which suits long rejected sides), and
outcome pairs at half of fork's rate, which was the best of three with 4 and 5 steps. Three seeds, N = 1000, validation; all else
as in configs/arithmetic_scaling_regimes.py with 4 steps, whose rows stand beside them, with SFT on 32,000 for the multiples. Run
it in the work directory of configs/arithmetic_scaling.py. Hardware: two CPU cores, two workers. Time, measured
beside other work, pi_sft anew: 55 minutes.
Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_four.py --workers=2; then
python -m experiments.claims --config=configs/arithmetic_scaling_four.py --only-settings --table
"""

from configs import arithmetic_scaling_outcome_rate, arithmetic_scaling_parts, arithmetic_scaling_regimes

CONTROLS = ("rounds_oracle", "rounds_random", "rounds_rest_slow")


def get_config():
    c = arithmetic_scaling_regimes.get_config()
    c.name = "arithmetic_scaling_four"
    c.problems.settings.difficulty.steps = (4, 4)
    c.seeds, c.sft_sizes = (0, 1, 2), (4000, 16000, 32000)
    parts, rate = arithmetic_scaling_parts.get_config(), arithmetic_scaling_outcome_rate.get_config()
    for name in CONTROLS + (arithmetic_scaling_outcome_rate.METHOD,):
        source = parts if name in CONTROLS else rate
        c.methods[name] = source.methods[name].to_dict()
        c.titles[name] = source.titles[name]
    return c
