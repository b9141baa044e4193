"""What makes per-step DPO work: each part of it changed alone, at N = 1000, on validation, from one pi_sft and its samples.

Rollouts a step (2 to 32, best-of-2), K of the policy that completes (1 to 10, 16 rollouts, weighted pairs), pairs weighted by the
value before the pit or chosen by it (a zero after a small value is mostly a sampling zero), every significantly negative step as
a pit, the pits of the truth (upper bound), random ones (lower bound), the whole rest as the rejected side, these three in rounds
too, the whole rest at a lower rate as well; RFT on right answers with and without a wrong step, offline and in rounds, and rounds
of filtered steps; longer SFT; and how much each method of configs/arithmetic_scaling.py moves right and wrong steps (the columns
of drift).

Run it in the work directory of configs/arithmetic_scaling.py, whose cells it needs: SFT at all sizes, for the multiples, and the
methods. Hardware: two CPU cores. Time beyond those, measured with two workers beside other work: 75 minutes a seed.
Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_parts.py --workers=2
"""

from configs import arithmetic_scaling


def get_config():
    c = arithmetic_scaling.get_config()
    c.name = "arithmetic_scaling_parts"
    c.drift = 300
    entries = c.methods.to_dict()
    pairs = {k: v for k, v in entries["dpo_per_step"].items() if k != "grid"} | {"method": "dpo_per_step"}
    # Do wrong steps in right answers hurt RFT (C4), and do rounds heap them up? As many rows, those with or without such a step
    # taken first; and rounds on steps that are filtered by their advantage (C8).
    for kind in ("flawless", "flawed"):
        options = {"options": {"cap": 1, "first": kind}}
        c.methods[f"rft_{kind}"] = {**entries["rft"], "method": "rft", **options}
        c.methods[f"rounds_{kind}"] = {**entries["rounds_rft"], **options}
    c.methods.rounds_filtered = {
        **entries["rounds_rft"],
        "method": "advantage_filtered",
        "rounds": entries["rounds_fork"]["rounds"],
    }
    for rollouts in (2, 4, 16, 32):  # 8 are pits_alike: unweighted pairs are the same for every K
        c.methods[f"rollouts_{rollouts}"] = {**pairs, "monte_carlo": {"rollouts": rollouts}, "credit": {"k": 2}}
    # Weighted pairs: K moves no first step of the lowest value, so without weights it does nothing.
    for k in (1, 2, 5, 10):
        credit = {"k": k, "pair_weight": "value_before"}
        c.methods[f"best_of_{k}"] = {**pairs, "monte_carlo": {"rollouts": 16}, "credit": credit}
    # Of 8 rollouts before the pit two or more must be right: best-of-5 values are 0, .63, .89, ...
    credits = {"weighted": {"pair_weight": "value_before"}, "chosen": {"least_value": 0.8}}
    credits |= {"significant": {"pits": "significant", "limit": 3}, "alike": {}}
    # The fork without the localisation, the truth's pits, and no knowledge of the pit at all.
    credits |= {"rest": {"rejected": "rest"}, "oracle": {"pit_rule": "oracle"}, "random": {"pit_rule": "random"}}
    for name, credit in credits.items():
        c.methods[f"pits_{name}"] = {**pairs, "credit": credit}
    for name in ("rest", "oracle", "random"):  # in rounds, where C5 and C6 are read
        c.methods[f"rounds_{name}"] = {**entries["rounds_fork"], "credit": credits[name]}
    for name in c.methods:
        if name not in entries:
            c.titles[name] = _title(*name.rsplit("_", 1))
    # Is it localisation that the whole rest lacks, or does its longer rejected side want a lower rate, as outcome pairs do?
    slow = entries["rounds_outcome_slow"]["optimizer"]
    c.methods.rounds_rest_slow = {**entries["rounds_fork"], "credit": credits["rest"], "optimizer": slow}
    c.titles.rounds_rest_slow = "6 rounds, the whole rest as the rejected side, at a quarter of fork's rate"
    # What as many updates as six rounds have are worth without samples.
    rounds = entries["rounds_fork"]
    count = rounds["rounds"]["count"]
    longer = {"method": "sft_continued", "updates": count * rounds["updates"], "looks": count}
    c.methods.sft_longer = {**entries["sft_continued"], **longer}
    c.titles.sft_longer = "SFT, as many updates more as 6 rounds"
    return c


def _title(part: str, value: str) -> str:
    """What a row of the table changes."""
    if part in ("rollouts", "best_of"):
        return f"{value} rollouts a step" if part == "rollouts" else f"weighted by best-of-{value} value, 16 rollouts"
    if part == "rft":
        return f"RFT, 1 positive, {value} ones first"
    words = {
        "alike": "fork pairs as they are: 8 rollouts, best-of-5",
        "weighted": "weighted by the value before the pit",
        "chosen": "only pits with a value before them of .8 or more",
        "significant": "every significantly negative step",
        "rest": "the whole rest as the rejected side",
        "filtered": "of advantage-filtered",
        "flawless": "of RFT, 1 positive, flawless ones first",
        "flawed": "of RFT, 1 positive, flawed ones first",
        "oracle": "the oracle's pits",
        "random": "a random step as pit",
    }
    if part != "rounds":
        return words[value]
    return f"6 rounds {words[value]}" if words[value].startswith("of ") else f"6 rounds, {words[value]}"
