"""A small training run in a process of its own, for tests that kill it or run it on two processes.

python train_job.py '{"out": DIR, ...}'
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

DEFAULTS = {
    "loss": "sft",
    "updates": 30,
    "looks": 3,
    "save_every": 2,
    "mesh": None,
    "processes": 1,
    "process": 0,
    "port": 0,
    "term_at": None,
    "slow": 0.0,
    "fill": 0,
    "pack": "none",
}


def main(job: dict) -> None:
    import jax

    if job["processes"] > 1:
        jax.distributed.initialize(f"127.0.0.1:{job['port']}", job["processes"], job["process"])
    import numpy as np

    from synthrl_jax.credit.example import Example
    from synthrl_jax.learning.batches import Batches
    from synthrl_jax.learning.optimizer import OptimizerSettings
    from synthrl_jax.learning.trainer import TrainSettings, train
    from synthrl_jax.policy import decoder
    from synthrl_jax.policy.sharding import make_mesh

    config = decoder.DecoderConfig(vocab_size=32, width=16, layers=2, heads=4, kv_heads=2)
    params = decoder.init(config, jax.random.key(0))
    random = np.random.default_rng(0)
    rows = []
    for i in range(32):
        tokens = random.integers(0, 32, random.integers(6, 16))
        pair = (f"p{i // 2}", ("chosen", "rejected")[i % 2]) if job["loss"] == "dpo" else None
        ref = -random.random(len(tokens)).astype(np.float32)
        rows.append(Example(tokens, np.arange(len(tokens)) > 2, pair=pair, ref_logprobs=ref))
    batches = Batches(rows, batch=8, micro=4, seed=1, pad_id=0, pack=job["pack"], pack_length=32)
    settings = TrainSettings(
        loss=job["loss"],
        loss_args={"beta": 0.5} if job["loss"] == "dpo" else {},
        optimizer=OptimizerSettings(learning_rate=1e-2),
        updates=job["updates"],
        looks=job["looks"],
        save_every=job["save_every"],
        log_every=5,
    )
    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)
    if job["term_at"] is not None and job["process"] == 0:

        def term():
            while f"[{job['term_at']}]" not in (out / "seen").read_text():
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGTERM)

        (out / "seen").touch()
        threading.Thread(target=term, daemon=True).start()
    at = batches.at

    def watched(step):
        with (out / "seen").open("a") as seen:
            seen.write(f"[{step}]")
        time.sleep(job["slow"])
        return at(step)

    batches.at = watched
    if job["fill"]:
        import resource

        # the file system seems full: no file may grow beyond this
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["fill"], job["fill"]))

    def validate(params):
        return -float(abs(params["embed"]).sum())

    mesh = make_mesh(**job["mesh"]) if job["mesh"] else None
    result = train(config, params, batches, settings, workdir=out, mesh=mesh, validate=validate)
    from jax.experimental import multihost_utils

    whole = lambda x: multihost_utils.process_allgather(x, tiled=True) if job["processes"] > 1 else np.asarray(x)  # noqa: E731
    leaves = {jax.tree_util.keystr(path): whole(x) for path, x in jax.tree_util.tree_leaves_with_path(result.params)}
    if job["process"] == 0:
        np.savez(out / "params.npz", **leaves)
        (out / "result.json").write_text(json.dumps([result.best_update, result.looks]))


if __name__ == "__main__":
    main(DEFAULTS | json.loads(sys.argv[1]))
