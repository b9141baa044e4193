"""The plan on paper: FLOPs and bytes of each program by hand, and the tokens, rollouts and files of a whole experiment."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

from experiments import plan_programs
from experiments.cells import Node
from experiments.plan_programs import Lengths, Program


def layer_matrices(config) -> int:
    """Parameters of one layer's matrices."""
    attention = config.width * config.head_dim * (2 * config.heads + 2 * config.kv_heads)
    return attention + 3 * config.width * config.mlp_width


def parameters(config) -> int:
    """All parameters of the decoder, norms and biases with them."""
    norms = config.width * (2 * config.layers + 1) + 2 * config.head_dim * config.layers * config.qk_norm
    biases = config.layers * config.head_dim * (config.heads + 2 * config.kv_heads) * config.qkv_bias
    embeddings = config.vocab_size * config.width * (1 if config.tied else 2)
    return layer_matrices(config) * config.layers + embeddings + norms + biases


def attention_flops(config, queries: float, keys: float) -> float:
    """Scores and weighted values of all layers, every query against every key that is computed."""
    return 4.0 * config.layers * config.heads * config.head_dim * queries * keys


def forward_flops(config, rows: int, length: int, predicted: int) -> float:
    """A forward pass of `rows` rows, the unembedding at `predicted` tokens of all."""
    tokens = rows * length
    matrices = 2.0 * tokens * layer_matrices(config) * config.layers
    return matrices + attention_flops(config, tokens, length) + 2.0 * predicted * config.width * config.vocab_size


def chunked_vocabulary(config) -> int:
    """The vocabulary as the unembedding computes it: whole chunks, the last one padded."""
    chunk = min(config.vocab_chunk, config.vocab_size) or config.vocab_size
    return -(-config.vocab_size // chunk) * chunk


def program_flops(program: Program, config, shape=None) -> float:
    """FLOPs that a program does, over all devices: recomputation of a rematerialised layer included, as the matrix unit does
    them (attention computes the masked half too)."""
    rows, T = program.rows, program.length
    if program.kind == "score":
        return forward_flops(config, rows, T, 0) + 2.0 * rows * T * config.width * chunked_vocabulary(config)
    if program.kind == "train":
        head = 2.0 * rows * (T - 1) * config.width * chunked_vocabulary(config)
        layers, attention = forward_flops(config, rows, T, 0), attention_flops(config, rows * T, T)
        again = 0.0
        if config.remat == "full":  # all of a layer but its last product, whose result no gradient needs
            again = layers - 2.0 * rows * T * config.layers * config.width * config.mlp_width
        elif config.remat == "dots":
            again = attention
        if config.attention == "splash":  # its two backward kernels make the scores twice and their gradient once more
            again += 1.5 * attention
        if program.settings.get("lora"):  # of frozen matrices only the gradient of what goes in
            adapters = 2.0 * rows * T * adapter_parameters(program, config)
            more = adapters if config.remat == "full" else 0.0
            return (
                2 * (layers - attention + head)
                + 3 * (attention + adapters)
                + again
                + more
                + bool(config.vocab_chunk) * head
            )
        return 3 * layers + again + (4 if config.vocab_chunk else 3) * head
    if program.kind == "prefill":
        return forward_flops(config, shape.jobs, shape.prefix, 0)
    keys = shape.slots * shape.prefix + (1 + shape.spills / shape.rows) * shape.ring
    one = shape.batch * (2.0 * layer_matrices(config) * config.layers + 2.0 * config.width * config.vocab_size)
    return program.trips * (one + attention_flops(config, shape.batch, keys))


def model_flops(program: Program, config, shape=None) -> float:
    """What the model needs, whatever the program recomputes: the numerator of MFU."""
    if program.kind != "train":
        return program_flops(program, config, shape)
    forward = forward_flops(config, program.rows, program.length, program.rows * (program.length - 1))
    if program.settings.get("lora"):  # what is frozen needs no gradient of its own
        return 2 * forward + attention_flops(config, program.rows * program.length, program.length)
    return 3 * forward


def adapter_parameters(program: Program, config) -> float:
    """Parameters of a LoRA step's adapters."""
    return state_bytes(program, config)[0] / 4


def state_bytes(program: Program, config) -> tuple[float, float, float]:
    """Bytes over all chips of a train step's (trained parameters, optimiser's state, frozen parameters)."""
    known = json.dumps([program.settings["optimizer"], program.settings.get("lora")], sort_keys=True)
    return _state_bytes(known, config)


@functools.lru_cache(maxsize=64)
def _state_bytes(known: str, config) -> tuple[float, float, float]:
    rule, lora = json.loads(known)
    program = Program("", "train", 1, 1, settings={"optimizer": rule, "lora": lora})
    return plan_programs.state_bytes(program, config)


def held_bytes(program: Program, config, mesh: dict[str, int]) -> float:
    """Bytes of a chip that stay beside a program: of training the best parameters so far and the policy that it began with,
    of sampling and scoring the stacked weights that those for decoding were cut from."""
    if program.kind != "train":
        return 2.0 * parameters(config) / mesh["tensor"]
    trained, _, _ = state_bytes(program, config)
    return (trained + 2.0 * parameters(config)) / (mesh["fsdp"] * mesh["tensor"])


def look_bytes(program: Program, config, mesh: dict[str, int], look: dict[str, int], shape) -> float:
    """Bytes of a chip while training looks at validation: its state, and the policy on mesh `look` with its caches."""
    state = sum(state_bytes(program, config)) / (mesh["fsdp"] * mesh["tensor"])
    sampler = 4.0 * parameters(config) / look["tensor"] + cache_bytes(config, shape) / ways_of_caches(config, look)
    return state + held_bytes(program, config, mesh) + sampler


def resident_bytes(program: Program, config, mesh: dict[str, int], shape=None) -> float:
    """Bytes of a chip that a program cannot do without: weights, optimiser and gradients, or weights and caches."""
    P = parameters(config)
    ways = mesh["fsdp"] * mesh["tensor"]
    if program.kind == "train":
        trained, moments, frozen = state_bytes(program, config)
        kept = 2.0 * config.layers * program.micro_rows * program.length * config.width  # each layer's input
        return (2 * trained + moments + frozen) / ways + kept / (mesh["data"] * mesh["fsdp"])
    if program.kind == "score":
        return 2.0 * P / mesh["tensor"]
    return 2.0 * P / mesh["tensor"] + cache_bytes(config, shape) / ways_of_caches(config, mesh)


def ways_of_caches(config, mesh: dict[str, int]) -> int:
    """How many ways the sampler's caches are split: groups over data and fsdp, heads over tensor where they divide."""
    heads = mesh["tensor"] if config.kv_heads % mesh["tensor"] == 0 else 1
    return mesh["data"] * mesh["fsdp"] * heads


def cache_bytes(config, shape) -> float:
    """Keys and values of the grouped sampler's state, bfloat16."""
    return 2.0 * 2 * config.layers * config.kv_heads * config.head_dim * shape.groups * shape.held


def memory_traffic(program: Program, config, mesh: dict[str, int], shape=None) -> float:
    """Bytes that one chip reads and writes at least: weights (and caches) once a step, optimiser state in and out once."""
    P = parameters(config)
    if program.kind == "train":
        passes = 2 + (config.remat == "full")
        gathered = 2.0 * P / mesh["tensor"] * passes * program.micro
        trained, moments, _ = state_bytes(program, config)
        return gathered + 2 * (2 * trained + moments) / (mesh["fsdp"] * mesh["tensor"])
    weights = 2.0 * P / mesh["tensor"]
    if program.kind == "decode":
        return program.trips * (weights + cache_bytes(config, shape) / ways_of_caches(config, mesh))
    return weights


def interconnect_traffic(program: Program, config, mesh: dict[str, int], shape=None) -> dict[str, float]:
    """Bytes that one chip sends, by mesh axis: gathered weights and scattered gradients, and sums over tensor."""
    P, D = parameters(config), config.width
    fsdp, tensor, data = mesh["fsdp"], mesh["tensor"], mesh["data"]
    passes = (2 + (config.remat == "full")) if program.kind == "train" else 1
    out: dict[str, float] = {}
    if program.kind == "train" and fsdp > 1:
        share = (fsdp - 1) / fsdp / tensor
        gradients = state_bytes(program, config)[0] * program.micro * share
        out["fsdp"] = 2.0 * P * passes * program.micro * share + gradients
    if tensor > 1:
        tokens = program.micro_rows * program.length * program.micro / (data * fsdp)
        sums = 4 if program.kind == "train" else 2
        if program.kind in ("prefill", "decode"):
            tokens = shape.jobs * shape.prefix if program.kind == "prefill" else shape.batch * program.trips
            tokens /= data * fsdp
        out["tensor"] = sums * config.layers * 2 * 2.0 * tokens * D * (tensor - 1) / tensor
    if program.kind == "train" and data > 1:
        out["data"] = 2 * state_bytes(program, config)[0] / (fsdp * tensor) * (data - 1) / data
    return out


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the cells of one stage do together."""

    stage: str
    cells: int
    generated: float = 0.0  # tokens
    rollouts: float = 0.0
    prefilled: float = 0.0
    updates: float = 0.0
    scored: float = 0.0  # tokens
    stored: float = 0.0  # bytes
    programs: tuple[tuple[str, float], ...] = ()  # updates by program


def _size(node: Node, by_label: dict[str, Node]) -> int:
    """Problems that a cell is about."""
    while node.stage not in ("data", "slice"):
        role = next((role for role in ("test", "data") if role in node.inputs), None) or next(iter(node.inputs))
        node = by_label[node.inputs[role]]
    return node.settings["count"]


def rows_of(node: Node, problems: int, c: dict) -> int:
    """Units (rows or pairs) that a training cell can have at most."""
    if node.stage == "sft":
        return problems
    from experiments import methods

    rows = methods.find(node.settings["name"], node.settings)[1].get("rows", "")
    if rows.startswith("pairs"):
        wrong = problems * c["monte_carlo"]["negatives"]
        return min(wrong, problems * c["credit"]["per_problem"])
    if rows in ("weighted", "filtered"):
        return problems * (c["monte_carlo"]["negatives"] + c["monte_carlo"]["positives"])
    if node.settings["name"].startswith("rft"):
        return problems * c["positives"]["cap"]
    return problems


def stages(nodes: Sequence[Node], c: dict, lengths: Lengths, config, made: Sequence[Program]) -> list[Stage]:
    """What each stage of an experiment does, upper bounds where it depends on what is sampled: every problem has enough wrong
    and right responses, and every method as many rows as its caps allow."""
    by_label = {node.label: node for node in nodes}
    total: dict[str, dict[str, Any]] = {}
    token_bytes, row_bytes = 8, 120  # a shard's token and log-probability, and what a completion has besides

    def add(stage, **amounts):
        entry = total.setdefault(stage, {"cells": 0, "programs": {}})
        entry["cells"] += 1
        for name, amount in amounts.items():
            if name == "programs":
                for program, updates in amount.items():
                    entry["programs"][program] = entry["programs"].get(program, 0) + updates
            else:
                entry[name] = entry.get(name, 0.0) + amount

    def sampled(stage, rollouts, mean, prefills, stored=True):
        tokens = rollouts * mean
        bytes_stored = (tokens * token_bytes + rollouts * row_bytes) if stored else rollouts * row_bytes
        add(stage, rollouts=rollouts, generated=tokens, prefilled=prefills, stored=bytes_stored)

    response, prompt = lengths.mean_response, lengths.mean_prompt
    validation = c["validation_problems"]
    for node in nodes:
        s = node.settings
        if node.stage == "sample":
            N = _size(node, by_label)
            sampled("sample", N * s["n"], response, N * prompt)
        elif node.stage == "values":
            N = _size(node, by_label)
            responses = N * (s["negatives"] + s["positives"])
            rollouts = responses * (lengths.steps - 1) * s["rollouts"]
            sampled("values", rollouts, response / 2, responses * (prompt + response) * bool(s["rollouts"]))
        elif node.stage == "evaluate":
            N = _size(node, by_label)
            sampled("evaluate", N * (1 + s["n"]), response, 2 * N * prompt, stored=False)
        elif node.stage in ("sft", "train"):
            N, train = _size(node, by_label), s["train"]
            units = rows_of(node, N, c)
            updates = train["updates"] or max(1, round(train["epochs"] * units / train["batch"]))
            name = "sft" if node.stage == "sft" else s["name"]
            program = next((p.name for p in made if name in p.settings.get("used_by", ())), made[0].name)
            sides = next(p.settings.get("sides", 1) for p in made if p.name == program)
            looks = min(train["looks"], updates) * validation
            add(
                "sft" if node.stage == "sft" else "train",
                updates=updates,
                programs={program: updates},
                rollouts=looks,
                generated=looks * response,
                prefilled=looks * prompt,
                scored=units * sides * (prompt + response) if sides == 2 else 0.0,
                stored=2.0 * parameters(config),  # the exported policy
            )
        else:
            add(node.stage)
    return [Stage(name, **{**entry, "programs": tuple(entry["programs"].items())}) for name, entry in total.items()]
