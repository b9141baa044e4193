"""Every stage on real text: GSM8K's JSONL, a small decoder from scratch, a SentencePiece model trained on its training text.

A model of this size learns the form of the solutions and hardly any mathematics: accuracy is near zero, and with few right
samples the preference methods have few pairs. It shows that the code runs on GSM8K as it is. Hardware: two
CPU cores, 15 minutes with --workers=2.
Command, with the folder that holds GSM8K's train.jsonl and test.jsonl:
    python -m experiments.run --config=configs/gsm8k_small.py --workdir=runs/gsm8k_small --config.problems.path=DIR
"""

from configs import base


def get_config():
    c = base.get_config()
    c.name = "gsm8k_small"
    c.base.pretrained = None
    c.base.pieces = 2048
    c.base.decoder = {"width": 128, "layers": 4, "heads": 4, "tied": True, "scan": False, "max_positions": 1024}
    c.problems.source = "gsm8k"
    c.problems.settings = {"max_characters": 600}
    c.problems.path = ""
    c.sizes = (1000,)
    c.validation_problems, c.test_problems = 100, 200
    c.prompt = "Question: {question}\nAnswer: "
    c.sample.update({"n": 16, "max_tokens": 160, "shard_roots": 100})
    c.monte_carlo.update({"negatives": 1, "positives": 1, "rollouts": 5, "shard_roots": 50})
    c.evaluate.n = 5
    c.sft.update({"batch": 16, "epochs": 3.0, "looks": 3, "optimizer": {"learning_rate": 1e-3}})
    short = {"batch": 16, "updates": 30, "looks": 2, "optimizer": {"learning_rate": 1e-4}}
    dpo = short | {"loss_args": {"beta": 0.1, "nll": 0.2}}
    c.methods = {
        "sft_continued": short,
        "rft": {"epochs": 1.0, "looks": 1},
        "dpo_outcome": dpo,
        "dpo_edit_distance": dpo,
        "dpo_per_step": dpo,
        "dpo_per_step_solution": dpo,
        "advantage_weighted": short | {"loss_args": {"beta": 0.3, "max_weight": 20.0}},
        "advantage_filtered": short,
    }
    return c
