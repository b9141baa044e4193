"""Compiles a training step for a described TPU and prints what the program holds: a JSON request on the command line."""

import json
import math
import sys


def main(job: dict) -> dict:
    import jax
    from jax.experimental import topologies

    from experiments import plan_hlo, plan_programs
    from synthrl_jax.policy import sharding
    from synthrl_jax.policy.decoder import DecoderConfig

    config = DecoderConfig(**job["config"])
    topology = topologies.get_topology_desc(platform="tpu", topology_name=job["topology"])
    mesh = sharding.make_mesh(**job["mesh"], devices=topology.devices)
    settings = {"loss_args": job["loss_args"], "optimizer": {"learning_rate": 1e-5}, "sides": job["sides"]}
    program = plan_programs.Program(
        "train", "train", job["rows"], job["length"], job["micro"], job["loss"], settings=settings
    )
    function, arguments = plan_programs.build(program, config, mesh)
    with jax.set_mesh(mesh):
        compiled = function.lower(*arguments).compile()
    memory = compiled.memory_analysis()
    computations, _ = plan_hlo.parse(compiled.as_text())
    gathered, vocabulary = [], []
    for lines in computations.values():
        for line in lines:
            for kind, dims, _ in plan_hlo.SHAPE.findall(line.shape):
                shape = [int(n) for n in dims.split(",") if n]
                if line.op in ("all-gather", "all-gather-start"):
                    gathered.append([math.prod(shape), kind, shape])
                if config.vocab_size in shape:
                    vocabulary.append([math.prod(shape), kind, shape])
    largest = lambda found: sorted(found, reverse=True)[:3]  # noqa: E731
    return {
        "peak_bytes": memory.peak_memory_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "gathered": largest(gathered),
        "with_vocabulary": largest(vocabulary),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
