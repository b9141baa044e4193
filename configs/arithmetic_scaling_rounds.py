"""Are six rounds as they are the best that fork pairs, outcome pairs and RFT can do? Each gets looks at other rates, both kinds
of pairs as many at other betas and NLL weights; twice the rounds; fork pairs with pi_sft as the reference of all rounds and with
2 and 32 rollouts a step; rounds on all problems with as many more updates. And are RFT and outcome pairs as good without the
samples that they get for fork pairs' rollouts?

One seed, on validation: choices of configs/arithmetic_scaling.py that were looked at after it was fixed, and that changed
nothing there. Run it in that config's work directory. Hardware: two CPU cores, two workers. Time, measured: 36 minutes
for twice the rounds and fork pairs' rates and NLL weights; for the rest an estimated two and a half hours.
Results: experiments/results/arithmetic_scaling.json.
Command: python -m experiments.run --config=configs/arithmetic_scaling_rounds.py --workers=2; then
python -m experiments.claims --config=configs/arithmetic_scaling_rounds.py --only-settings --table
"""

from configs import arithmetic_scaling

SLOW = ", at a quarter of fork's rate"


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
    # Each kind gets the same looks around the rate, beta and NLL that it has in the study.
    slow = entries["rounds_outcome_slow"]
    for kind, entry, rates in (("fork", fork, ("1e-4", "4e-4")), ("outcome_slow", slow, ("2.5e-5", "1e-4"))):
        title = c.titles[f"rounds_{kind}"]
        for rate in rates:
            name = f"rounds_{kind}_{rate}".replace(".", "_")
            methods[name] = {**entry, "optimizer": {**entry["optimizer"], "learning_rate": float(rate)}}
            titles[name] = f"{title.removesuffix(SLOW)}, rate {rate}"
        for nll in (0, 1):
            methods[f"rounds_{kind}_nll{nll}"] = {**entry, "loss_args": {**entry["loss_args"], "nll": float(nll)}}
            titles[f"rounds_{kind}_nll{nll}"] = f"{title}, NLL {nll}"
        for beta in ("1e-1", "1e0"):
            methods[f"rounds_{kind}_beta{beta}"] = {**entry, "loss_args": {**entry["loss_args"], "beta": float(beta)}}
            titles[f"rounds_{kind}_beta{beta}"] = f"{title}, beta {float(beta):g}"
    fast = entries["rounds_outcome"]
    # Offline the best point of outcome pairs.
    methods["rounds_outcome_beta1e0"] = {**fast, "loss_args": {**fast["loss_args"], "beta": 1.0}}
    titles["rounds_outcome_beta1e0"] = f"{c.titles['rounds_outcome']}, beta 1"
    rft = entries["rounds_rft"]
    for rate in ("1e-4", "4e-4"):
        methods[f"rounds_rft_{rate}"] = {**rft, "optimizer": {**rft["optimizer"], "learning_rate": float(rate)}}
        titles[f"rounds_rft_{rate}"] = f"{c.titles['rounds_rft']}, rate {rate}"
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
