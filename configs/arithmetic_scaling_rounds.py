"""Are six rounds of fork pairs as they are the best that fork pairs can do? Other rates, betas, NLL weights, pi_sft as the
reference of all rounds, 2 and 32 rollouts a step, twice the rounds, and rounds on all problems with as many more updates.
And are RFT and outcome pairs as good without the samples that they get for fork pairs' rollouts?

One seed, on validation: choices of configs/arithmetic_scaling.py that were looked at after it was fixed, and that changed
nothing there. Run it in that config's work directory. Hardware: two CPU cores, two workers. Time, measured: 36 minutes
without betas, reference, rollouts, equal samples and rounds on all problems, which came later: an estimated two hours more.
Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_rounds.py --workers=2; then
python -m experiments.claims --config=configs/arithmetic_scaling_rounds.py --only-settings --table
"""

from configs import arithmetic_scaling


def get_config():
    c = arithmetic_scaling.get_config()
    c.name = "arithmetic_scaling_rounds"
    c.seeds, c.sft_sizes = (0,), ()
    entries = c.methods.to_dict()
    fork = entries["rounds_fork"]
    methods, titles = {}, {}
    for name in ("rounds_fork", "rounds_rft", "rounds_outcome_slow"):
        methods[name] = {**entries[name], "rounds": {**entries[name]["rounds"], "count": 12}}
        titles[name] = c.titles[name].replace("6 rounds", "12 rounds")
    for rate in ("1e-4", "4e-4"):
        methods[f"rounds_fork_{rate}"] = {**fork, "optimizer": {**fork["optimizer"], "learning_rate": float(rate)}}
        titles[f"rounds_fork_{rate}"] = f"6 rounds of fork pairs, rate {rate}"
    for nll in (0, 1):
        methods[f"rounds_fork_nll{nll}"] = {**fork, "loss_args": {**fork["loss_args"], "nll": float(nll)}}
        titles[f"rounds_fork_nll{nll}"] = f"6 rounds of fork pairs, NLL {nll}"
    for beta in ("1e-1", "1e0"):
        methods[f"rounds_fork_beta{beta}"] = {**fork, "loss_args": {**fork["loss_args"], "beta": float(beta)}}
        titles[f"rounds_fork_beta{beta}"] = f"6 rounds of fork pairs, beta {float(beta):g}"
    methods["rounds_fork_anchored"] = {**fork, "rounds": {**fork["rounds"], "reference": "sft"}}
    titles["rounds_fork_anchored"] = "6 rounds of fork pairs, pi_sft as the reference of all"
    for rollouts in (2, 32):  # is Q too noisy?
        name = f"rounds_fork_rollouts{rollouts}"
        methods[name] = {**fork, "monte_carlo": {"rollouts": rollouts}, "credit": {"k": 2}}
        titles[name] = f"6 rounds of fork pairs, {rollouts} rollouts a step"
    for name in ("rounds_rft", "rounds_outcome_slow"):  # the paper's comparison: rollouts are not counted
        methods[f"{name}_{c.sample.n}"] = {**entries[name], "rounds": fork["rounds"]}
        same = f"the same {c.sample.n} samples a problem"
        titles[f"{name}_{c.sample.n}"] = c.titles[name].replace("equal tokens", same)
    # Three times the problems, samples and updates in each round: is it the updates that skill lacks?
    updates = fork["updates"] * c.sizes[0] // fork["rounds"]["problems"]
    for name in ("rounds_fork", "rounds_rft"):
        wider = {"rounds": {**entries[name]["rounds"], "problems": c.sizes[0]}, "updates": updates}
        methods[f"{name}_wide"] = {**entries[name], **wider}
        titles[f"{name}_wide"] = c.titles[name].replace("6 rounds", f"6 rounds, {c.sizes[0]:,} problems each,")
    c.methods = methods
    c.titles.update(titles)
    return c
