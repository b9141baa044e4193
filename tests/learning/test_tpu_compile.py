"""Llama-2-7B training steps compiled ahead of time for TPU slices: they fit, and nothing is whole that need not be."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs import gsm8k_llama2_7b
from experiments import plan_compile

ROOT = Path(__file__).parent.parent.parent
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu (extra [plan]) is not here"
)
ENVIRONMENT = plan_compile.ENVIRONMENT | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}
CONFIG = gsm8k_llama2_7b.get_config()
TRAIN = {name: CONFIG.train[name] for name in ("remat", "attention", "vocab_chunk")}
SEVEN = gsm8k_llama2_7b.LLAMA2_7B | TRAIN | {"dtype": "bfloat16"}
# chips, bytes of one, mesh: the config's own, which names v5e:8x8; for the other slice its docstring says "fsdp"
SLICES = {"v5e:8x8": (64, 16e9, CONFIG.mesh.to_dict()), "v5p:2x2x4": (16, 95e9, CONFIG.mesh.to_dict() | {"fsdp": 16})}
ROWS, LENGTH = CONFIG.train.batch, 640


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize("topology", SLICES)
@pytest.mark.parametrize(("loss", "sides", "fields"), [("sft", 1, {}), ("dpo", 2, {"beta": 0.1})], ids=["sft", "dpo"])
def test_a_7b_step_fits_a_chip_with_room_and_gathers_one_layer_at_a_time(topology, loss, sides, fields):
    chips, memory, mesh = SLICES[topology]
    job = {"config": SEVEN, "topology": topology, "mesh": mesh, "loss": loss}
    job |= {"sides": sides, "loss_args": fields, "rows": ROWS * sides, "length": LENGTH, "micro": 1}
    command = [sys.executable, str(Path(__file__).with_name("compile_job.py")), json.dumps(job)]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert 3 * 4 * 6.7e9 / chips < found["argument_bytes"] < found["peak_bytes"] < 0.8 * memory
    # the largest matrix of one layer; a stack of them would be 32 times that
    layer = SEVEN["width"] * SEVEN["mlp_width"]
    assert found["gathered"] and found["gathered"][0][0] <= layer
    logits = ROWS * sides // chips * LENGTH * SEVEN["vocab_size"]
    assert all(size < logits / 2 for size, _, _ in found["with_vocabulary"])
