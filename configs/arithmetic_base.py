"""The shipped base model: two stages on drills, look-ups and problems of one to three steps, in all teacher styles.

Hardware: one CPU core; time: about 55 minutes (see the training log beside the weights). Command:
    python -m experiments.pretrain --config=configs/arithmetic_base.py --out=synthrl_jax/assets/arithmetic_base
"""

from ml_collections import ConfigDict


def get_config():
    c = ConfigDict()
    c.seed = 0
    c.pieces = 498
    c.decoder = ConfigDict({"width": 64, "layers": 4, "heads": 4, "tied": True, "scan": False})
    # Rows of `length` tokens hold several drills each; shares of (facts, look-ups, problems) per stage.
    c.length, c.batch = 160, 16
    c.stages = ConfigDict({"first": {"updates": 2500, "shares": (0.15, 0.85, 0.0)}})
    c.stages.second = ConfigDict({"updates": 17500, "shares": (0.03, 0.12, 0.85)})
    c.styles = (0.0, 0.1, 0.25, 0.5)
    c.optimizer = ConfigDict({"learning_rate": 2.5e-3, "warmup": 0.03, "final": 0.02})
    c.log_every = 500
    return c
