"""From a config to its grid of cells: which stages, on which inputs, with which part of the settings."""

from typing import Any

from ml_collections import ConfigDict

from experiments import methods
from experiments.cells import Node
from experiments.settings import UsageError, merged

TRAIN_FIELDS = ("batch", "micro", "epochs", "updates", "looks", "patience", "optimizer", "loss_args")
METHOD_FIELDS = ("method", "examples", "loss", "start", "options", "credit")


def plan(config: ConfigDict) -> list[Node]:
    """All nodes of a config in an order in which each comes after its inputs. UsageError for settings that do not fit."""
    c = config.to_dict()
    problems = {"source": c["problems"]["source"], **c["problems"]["settings"]}
    if c["problems"]["path"]:
        problems["path"] = c["problems"]["path"]
    check(c)
    nodes = [
        Node("data validation", "data", {**problems, "split": "validation", "count": c["validation_problems"]}),
        Node("data test", "data", {**problems, "split": "test", "count": c["test_problems"]}),
    ]
    shipped = {"pretrained": c["base"]["pretrained"]}
    if c["base"]["pretrained"]:
        nodes.append(Node("base", "base", shipped))
        nodes.append(_evaluation(c, "base", "base"))
    for seed in c["seeds"]:
        for size in c["sizes"]:
            nodes += _one(c, problems, size, seed)
    return nodes


def _one(c: dict, problems: dict, size: int, seed: int) -> list[Node]:
    """The cells of one size and seed."""
    at = f"N={size} seed={seed}"
    data = f"data {at}"
    nodes = [Node(data, "data", {**problems, "split": "train", "count": size}, seed=seed)]
    base = "base"
    if not c["base"]["pretrained"]:
        base = f"base {at}"
        nodes.append(Node(base, "base", dict(c["base"]), {"data": data}, seed))
    sft, sample, grade = f"sft {at}", f"sample {at}", f"grade {at}"
    positives, values, credit = f"positives {at}", f"values {at}", f"credit {at}"
    source = {"data": data, "sft": sft}
    sampler = {"prompt": c["prompt"], **c["sample"]}
    nodes += [
        Node(sft, "sft", _training(c, c["sft"]), {"base": base, "data": data, "validation": "data validation"}, seed),
        _evaluation(c, f"sft {at}", sft, seed),
    ]
    if not c["methods"]:
        return nodes
    grading = {"grading": c["grading"]}
    value_settings = {**c["sample"], **c["monte_carlo"], **grading, "delimiters": list(c["delimiters"])}
    value_settings.pop("n")
    nodes += [
        Node(sample, "sample", sampler, source, seed),
        Node(grade, "grade", {"prompt": c["prompt"], **grading}, {**source, "sample": sample}, seed),
        Node(positives, "positives", c["positives"], {"grade": grade}, seed),
        Node(values, "values", value_settings, {**source, "grade": grade, "positives": positives}, seed),
    ]
    earlier = {**source, "grade": grade, "positives": positives, "values": values}
    made = {}
    for name, entry in c["methods"].items():
        settings = merged(c["credit"], entry.get("credit") or {})
        if str(settings) not in made:  # methods that ask for the same credit share its cell
            label = credit if settings == c["credit"] else f"credit {name} {at}"
            made[str(settings)] = label
            nodes.append(Node(label, "credit", settings, earlier, seed))
        inputs = {**earlier, "credit": made[str(settings)], "base": base, "validation": "data validation"}
        training = _training(c, {k: v for k, v in entry.items() if k in TRAIN_FIELDS})
        own = {k: v for k, v in entry.items() if k in METHOD_FIELDS and k != "credit"}
        nodes.append(Node(f"{name} {at}", "train", {**training, **own, "name": name}, inputs, seed))
        nodes.append(_evaluation(c, f"{name} {at}", f"{name} {at}", seed))
    return nodes


def _training(c: dict, changes: dict) -> dict[str, Any]:
    validation = {**{k: c["sample"][k] for k in ("max_tokens", "rows", "sampler")}, "grading": c["grading"]}
    train = merged(c["train"], changes)
    return {"train": train, "prompt": c["prompt"], "mesh": c["mesh"], "validation": validation}


def _evaluation(c: dict, name: str, policy: str, seed: int = 0) -> Node:
    fields = {**{k: c["sample"][k] for k in ("max_tokens", "rows", "sampler")}, "grading": c["grading"]}
    settings = {**fields, **c["evaluate"], "prompt": c["prompt"]}
    return Node(f"evaluate {name}", "evaluate", settings, {"policy": policy, "test": "data test"}, seed)


def check(c: dict) -> None:
    """UsageError for what would only fail hours later."""
    from synthrl_jax.learning.optimizer import OptimizerSettings

    if c["evaluate"]["n"] < c["evaluate"]["k"]:
        raise UsageError(f"evaluate.n={c['evaluate']['n']} samples are too few for pass@{c['evaluate']['k']}")
    if c["monte_carlo"]["rollouts"] < c["credit"]["k"] or c["sample"]["n"] < c["credit"]["k"]:
        raise UsageError(
            f"monte_carlo.rollouts and sample.n must be at least credit.k={c['credit']['k']}: Q is undefined below"
        )
    if "{question}" not in c["prompt"]:
        raise UsageError(f"prompt={c['prompt']!r} does not hold {{question}}")
    for name, entry in {"sft": c["sft"], **c["methods"]}.items():
        if unknown := set(entry) - set(TRAIN_FIELDS) - set(METHOD_FIELDS):
            raise UsageError(f"methods.{name} has no field {', '.join(sorted(unknown))}")
        train = merged(c["train"], {k: v for k, v in entry.items() if k in TRAIN_FIELDS})
        try:
            OptimizerSettings(**train["optimizer"])
            if name != "sft":
                methods.find(name, entry)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name}: {error}") from None
        ways = c["mesh"]["data"] * c["mesh"]["fsdp"]
        micro = train["micro"] or train["batch"]
        if train["batch"] % micro or micro % ways:
            raise UsageError(
                f"{name}: a batch of {train['batch']} in micro-batches of {micro} does not divide over the mesh "
                f"(data {c['mesh']['data']} x fsdp {c['mesh']['fsdp']}); change train.batch, train.micro or mesh"
            )
