"""The shared-prefix layout at the size of a 7B model, compiled ahead of time for a TPU."""

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from experiments import plan_compile
from experiments.bench import rollout_work
from synthrl_jax.rollouts import Root, Settings, schedule, shared_state, workload_of

COMPILE = """
import dataclasses, json
import jax, numpy as np
from jax.experimental import topologies
from synthrl_jax.policy import decoder, sharding
from synthrl_jax.rollouts import shared_prefix, shared_state
from tests.rollouts.test_grouped_memory import planned

topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
mesh = sharding.make_mesh(data=1, tensor=8, devices=topology.devices)

def compiled(config, shape):
    state = jax.eval_shape(lambda: shared_state.empty_state(config, shape))
    weights = jax.eval_shape(lambda: decoder.unstack(config, decoder.init(config, jax.random.key(0))))
    placed = lambda tree, where: jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, where)
    state = placed(state, shared_state.placed(shared_state.state_specs(config, shape), mesh))
    weights = placed(weights, shared_state.placed(shared_state.weight_specs(config, mesh), mesh))
    arguments = config, shape, weights, state, (np.zeros(8, np.int32), None), False, np.int32(1)
    program = shared_prefix.decode.lower(*arguments).compile()
    memory = program.memory_analysis()
    kv = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.layers)) // 8
    return {"kv": kv, "arguments": memory.argument_size_in_bytes, "temp": memory.temp_size_in_bytes,
            "alias": memory.alias_size_in_bytes}

config, shape = planned(128, mesh)
unshared = dataclasses.replace(shape, groups=shape.batch, rows=1, slots=1, spills=0)
print(json.dumps({"shared": compiled(config, shape), "unshared": compiled(config, unshared)}))
"""


BENCH = rollout_work.workload("values", "llama2_7b")


def planned(rows, mesh=None, work=BENCH):
    """Llama-2-7B's config, and the shape that the sampler plans for values on it: by default of the bench's responses."""
    config = rollout_work.SIZES["llama2_7b"]
    settings = Settings(max_tokens=work.max_tokens, stop_ids=(), rows=rows, sampler="grouped")
    needs = workload_of(types.SimpleNamespace(config=config), [work.roots], settings).needs
    return config, schedule.plan(needs, settings, mesh)[0]


# prompts to 512 tokens, responses and rollouts to 256, 8 steps of 8 rollouts each
LONG_PROMPTS = rollout_work.Workload(
    [Root(f"response {i}", [1] * 768, range(540, 768, 32), n=8) for i in range(32)], max_tokens=256, temperature=1.0
)


@pytest.mark.parametrize("rows", [64, 128, 256, 512])
@pytest.mark.parametrize("work", [BENCH, LONG_PROMPTS], ids=["bench", "long"])
def test_values_of_a_7b_model_are_planned_with_a_third_of_the_unshared_bytes(rows, work):
    config, shape = planned(rows, work=work)
    state = jax.eval_shape(lambda: shared_state.empty_state(config, shape))
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.layers))
    a_row = 2 * config.layers * config.kv_heads * config.head_dim * 2 * (shape.prefix + shape.suffix)
    assert shape.batch == rows and held <= shape.batch * a_row / 3


@pytest.mark.long
@pytest.mark.timeout(900)
def test_values_of_a_7b_model_need_a_third_of_the_unshared_bytes():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install -e '.[plan]'")
    environment = {**os.environ, **plan_compile.ENVIRONMENT} | {
        "XLA_FLAGS": "",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    run = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.strip().splitlines()[-1])
    shared, unshared = found["shared"], found["unshared"]
    # what the compiler holds differs by just those bytes: the program itself makes no second copy of them
    assert shared["kv"] <= unshared["kv"] / 3
    spared = unshared["arguments"] - shared["arguments"]
    assert spared >= 0.95 * (unshared["kv"] - shared["kv"])
    assert shared["temp"] < shared["kv"]
    assert shared["arguments"] + shared["temp"] < 16e9
