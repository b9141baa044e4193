"""The programs that an experiment runs, as functions with abstract arguments: nothing here allocates or computes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.fields import all_sizes, sft_at
from experiments.settings import UsageError, merged

PREFERENCE_ROWS = 2  # a pair is two rows
GREEDY = "decode chunk, greedy"
COMPUTE = ("remat", "attention", "vocab_chunk", "scan", "dtype")


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Tokens: of the longest prompt and the mean one, of the mean response; steps of a response. Flags of the command."""

    prompt: int = 256
    mean_prompt: float = 110.0
    mean_response: float = 150.0
    steps: float = 4.5


@dataclasses.dataclass(frozen=True)
class Program:
    """kind: train, prefill, decode or score; rows and length of its batch; trips: rounds of its loop of unknown length."""

    name: str
    kind: str
    rows: int
    length: int
    micro: int = 1
    loss: str = ""
    trips: int = 1
    settings: dict = dataclasses.field(default_factory=dict)

    def config_of(self, config):
        """The decoder's config as this program computes: training by `train`, sampling and scoring by the defaults."""
        return dataclasses.replace(config, **self.settings.get("compute", {}))

    @property
    def micro_rows(self) -> int:
        """Rows that are in flight at once."""
        return self.rows // self.micro


def decoder_fields(c: dict, file: str | None) -> dict:
    """DecoderConfig fields of a config's base model: `file` (a Hugging Face config.json), the base's own shape, a shipped
    name, or the decoder that the config would initialise. UsageError where the shape is not known here."""
    from synthrl_jax.policy import checkpoint, families

    base = c["base"]
    place = base.get("pretrained")
    for candidate in [
        file,
        *([f"{place}/config.json", checkpoint.ASSETS / str(place) / "config.json"] if place else []),
    ]:
        if candidate and Path(candidate).is_file():
            return dataclasses.asdict(families.from_hf(json.loads(Path(candidate).read_text())))
    if file:
        raise UsageError(f"--decoder={file}: no such file")
    shape = base.get("shape") or base.get("decoder") or {}
    if shape.get("vocab_size") or not place:
        return {"vocab_size": base.get("pieces", 0), **shape}
    raise UsageError(
        f"base.pretrained={place!r} is not here: give its shape with --decoder=CONFIG.json (Hugging Face form)"
    )


def decoder_config(c: dict, file: str | None = None, changes: dict | None = None):
    """The DecoderConfig as it computes on TPU: bfloat16, with the config's and the flags' choices of remat and attention."""
    from synthrl_jax.policy.decoder import DecoderConfig

    fields = decoder_fields(c, file) | {"dtype": "bfloat16", "scan": None}
    for source in (c["base"], c.get("compute") or {}, c["train"], changes or {}):
        fields |= {name: source[name] for name in COMPUTE if source.get(name) is not None}
    try:
        return DecoderConfig(**fields)
    except (TypeError, ValueError) as error:
        raise UsageError(f"decoder: {error}") from None


def programs(c: dict, lengths: Lengths, sampling_rows: int = 0, changes: dict | None = None) -> list[Program]:
    """Every distinct program of a config: a train step for each loss and batch, prefill, a decode chunk, and scoring; `changes`
    to how training computes win over the config's."""
    from experiments import methods

    longest = c["sample"]["max_tokens"]
    T = -(-(lengths.prompt + longest) // 128) * 128
    changes = {name: value for name, value in (changes or {}).items() if value is not None}
    out: dict[Any, Program] = {}
    for name, entry in [*(("sft", sft_at(c, size)) for size in all_sizes(c)), *c["methods"].items()]:
        train = merged(c["train"], {k: v for k, v in entry.items() if k in c["train"]})
        loss, sides = "sft", 1
        if name != "sft":
            method, _ = methods.find(name, entry)
            loss = method.loss
            # a loss from outside that has a reference may be on pairs; of ours `advantage_weighted` only reports its KL
            sides = PREFERENCE_ROWS if method.needs_reference and loss not in ("sft", "advantage_weighted") else 1
        rows, micro = train["batch"] * sides, train["batch"] // (train["micro"] or train["batch"])
        lora = train.get("lora") or {"rank": 0}
        compute = {field: train[field] for field in COMPUTE if train.get(field) is not None} | changes
        settings = {"loss_args": train["loss_args"], "optimizer": train["optimizer"], "sides": sides, "used_by": [name]}
        settings |= {"lora": lora if lora["rank"] else {}, "compute": compute}
        rule = train["optimizer"].get("name", "adamw")
        key = (str(loss), rows, micro, rule, json.dumps([settings["lora"], compute], sort_keys=True))
        if key in out:
            used_by = out[key].settings["used_by"]
            used_by += [name] if name not in used_by else []
            continue
        label = f"train {loss} {train['batch']}" + (f" LoRA {lora['rank']}" if lora["rank"] else "")
        label += f" {rule}" if rule != "adamw" else ""
        if any(made.name == label for made in out.values()):
            label += f" of {name}"
        out[key] = Program(label, "train", rows, T, micro, loss, settings=settings)
    rows = sampling_rows or c["sample"]["rows"]
    plain = {"compute": {"remat": "none", "attention": "xla"}}
    sampler = plain | {"prefix": T, "suffix": longest, "n": c["monte_carlo"]["rollouts"], "steps": round(lengths.steps)}
    made = list(out.values())
    made.append(Program("prefill", "prefill", rows, T, settings=sampler))
    made.append(Program("decode chunk", "decode", rows, T, trips=32, settings=sampler))
    # greedy answers: a prefix for each row, the largest caches
    alone = sampler | {"prefix": lengths.prompt, "n": 1, "steps": 1}
    made.append(Program(GREEDY, "decode", rows, lengths.prompt + longest, trips=32, settings=alone))
    chunk = changes.get("vocab_chunk", c["train"].get("vocab_chunk") or 0)
    # a pair shares a row; fewer rows where memory wants it
    made.append(Program("score", "score", 8, 2 * T, settings={"compute": plain["compute"] | {"vocab_chunk": chunk}}))
    return made


def sampler_shape(program: Program, mesh=None):
    """The grouped sampler's shape for many roots with a fork a step and n continuations a fork: for Monte Carlo values a root is
    a response."""
    from synthrl_jax.rollouts import schedule
    from synthrl_jax.rollouts.root import Settings

    s = program.settings
    tasks = s["n"] * s["steps"]
    roots = 100 * program.rows  # many more than fit at once
    needs = schedule.Needs(roots, roots * tasks, tasks, *[s["prefix"]] * 3, s["suffix"])
    settings = Settings(max_tokens=s["suffix"], sampler="grouped", rows=program.rows)
    return schedule.plan(needs, settings, mesh)[0]


def build(program: Program, config, mesh=None) -> tuple[Callable, tuple]:
    """The jitted function of a program and its abstract arguments, laid out on the mesh."""
    import jax
    import jax.numpy as jnp

    from synthrl_jax.policy import scoring, sharding

    def struct(shape, dtype, where=None):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    def on_mesh(tree, where):
        if where is None:
            return tree
        return jax.tree.map(lambda x, s: struct(x.shape, x.dtype, s), tree, where)

    if program.kind == "train":
        return _train(program, config, mesh, struct, on_mesh)
    if program.kind == "score":
        weights = _decoding_weights(config, mesh, on_mesh)
        shape = (program.rows, program.length)
        rows = None if mesh is None else sharding.rows_sharding(mesh, shape, micro=False)
        columns = [struct(shape, jnp.int32, rows)] * 4
        return scoring.score_packed, (config, mesh, weights, *columns)
    return _sampler(program, config, mesh, struct, on_mesh)


def trained(program: Program, config):
    """(config, shapes of what is trained in float32, shapes of what stays beside it or None): with LoRA adapters and the base."""
    import jax
    import jax.numpy as jnp

    from synthrl_jax.learning import lora
    from synthrl_jax.policy import decoder

    shapes = decoder.shapes(config)
    asked = program.settings.get("lora") or {}
    if not asked.get("rank"):
        return config, shapes, None
    settings = lora.LoraSettings(rank=asked["rank"], alpha=asked["alpha"], targets=tuple(asked["targets"]))
    frozen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(config.dtype)), shapes)
    adapters = jax.eval_shape(lambda params: lora.init(params, settings, jax.random.key(0)), frozen)
    return settings.config(config), adapters, frozen


def state_bytes(program: Program, config) -> tuple[float, float, float]:
    """Bytes of a train step's state over all chips: (trained parameters, the optimiser's state, frozen parameters)."""
    import jax
    import numpy as np

    from synthrl_jax.learning import optimizer

    config, shapes, frozen = trained(program, config)
    transform = optimizer.make(optimizer.OptimizerSettings(**program.settings["optimizer"]), 1000)
    sizes = [
        sum(float(np.prod(x.shape, dtype=float)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
        for tree in (shapes, jax.eval_shape(transform.init, shapes), frozen)
    ]
    return tuple(sizes)


def _train(program: Program, config, mesh, struct, on_mesh):
    import jax
    import jax.numpy as jnp

    from synthrl_jax.learning import optimizer, step
    from synthrl_jax.policy import sharding

    s = program.settings
    transform = optimizer.make(optimizer.OptimizerSettings(**s["optimizer"]), 1000)
    config, shapes, frozen = trained(program, config)
    function = step.make_step(
        config, step.find_loss(program.loss, dict(s["loss_args"])), transform, mesh=mesh, shapes=shapes
    )
    state = jax.eval_shape(transform.init, shapes)
    where = state_where = frozen_where = rows = None
    if mesh is not None:
        where = sharding.shardings(config, mesh, shapes)
        state_where = sharding.state_shardings(transform, shapes, where, mesh)
        frozen_where = None if frozen is None else sharding.shardings(config, mesh, frozen)
        rows = sharding.batch_sharding(mesh, micro=True)
    M, R, T = program.micro, program.micro_rows, program.length
    floats = {name: struct((M, R, T), jnp.float32, rows) for name in ("mask", "weight", "ref_logprobs")}
    batch = {"tokens": struct((M, R, T), jnp.int32, rows), **floats}
    batch["step_ids"], batch["advantage"] = struct((M, R, T), jnp.int32, rows), struct((M, R, 32), jnp.float32, rows)
    if s["sides"] == PREFERENCE_ROWS:
        batch["pair_weight"] = struct((M, R // 2), jnp.float32)
    arguments = (on_mesh(shapes, where), on_mesh(state, state_where), batch)
    return function, arguments if frozen is None else (*arguments, on_mesh(frozen, frozen_where))


def _decoding_weights(config, mesh, on_mesh):
    import jax

    from synthrl_jax.policy import decoder
    from synthrl_jax.rollouts import shared_state

    weights = jax.eval_shape(lambda p: decoder.unstack(config, p), decoder.shapes(config))
    where = None if mesh is None else shared_state.placed(shared_state.weight_specs(config, mesh), mesh)
    return on_mesh(weights, where)


def _sampler(program: Program, config, mesh, struct, on_mesh):
    import jax
    import jax.numpy as jnp
    import numpy as np

    from synthrl_jax.rollouts import sampling, shared_prefix, shared_state

    shape = sampler_shape(program, mesh)
    weights = _decoding_weights(config, mesh, on_mesh)
    state = jax.eval_shape(lambda: shared_state.empty_state(config, shape))
    if mesh is not None:
        state = on_mesh(state, shared_state.placed(shared_state.state_specs(config, shape), mesh))
    everywhere = None if mesh is None else jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    if program.kind == "decode":
        stops = (struct((8,), jnp.int32, everywhere), None)
        return shared_prefix.decode, (config, shape, weights, state, stops, False, struct((), jnp.int32, everywhere))
    F, Q = shape.jobs, shape.tasks
    key = jax.eval_shape(lambda: sampling.seed_key(0))
    kinds = {"tokens_FxT": ((F, shape.prefix), np.int32), "task_FxQxX": ((F, Q, shared_state.TASK), np.int32)}
    kinds |= {"warp_FxQx3": ((F, Q, 3), np.float32), "word_FxQx4": ((F, Q, 4), np.uint32)}
    kinds |= dict.fromkeys(("group_F", "slot_F", "stamp_F", "count_F"), ((F,), np.int32)) | {"jobs": ((), np.int32)}
    jobs = shared_prefix.Load(**{name: struct(*kind, everywhere) for name, kind in kinds.items()})
    return shared_prefix.load, (config, shape, weights, state, struct(key.shape, key.dtype, everywhere), jobs)
