"""Every stage and method on a handful of problems, for tests and for a first look at the files that a run leaves.

Hardware: one CPU core; time: about two minutes. The numbers mean nothing. Command:
    python -m experiments.run --config=configs/tiny.py --workdir=runs/tiny
"""

from configs import quickstart


def get_config():
    c = quickstart.get_config()
    c.name = "tiny"
    c.sizes, c.sft_sizes = (48,), ()
    c.validation_problems, c.test_problems = 16, 24
    c.sample.n, c.sample.shard_roots = 8, 16
    c.sample.rows = 16  # fewer rows, fewer shapes of the sampler to compile: most of the time here is the compiler's
    c.monte_carlo.update({"negatives": 1, "positives": 1, "rollouts": 5, "shard_roots": 16})
    c.evaluate.n = 5
    c.sft.update({"epochs": 2.0, "looks": 2})
    for entry in c.methods.values():
        entry.update({"batch": 8, "epochs": 0.0, "updates": 4, "looks": 2})
    return c
