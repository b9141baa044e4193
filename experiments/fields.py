"""The fields of a config: which there are, of what kind, and what must hold before anything is computed."""

import dataclasses
import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from configs import base
from experiments import crediting, methods, training
from experiments.settings import OPEN, UsageError, merged
from synthrl_jax.named import resolve
from synthrl_jax.policy.templates import template
from synthrl_jax.problems.problem import SOURCES

TRAIN_FIELDS = (
    "batch",
    "micro",
    "epochs",
    "updates",
    "looks",
    "patience",
    "optimizer",
    "loss_args",
    *training.DEFAULTS,
)
METHOD_FIELDS = ("method", "examples", "loss", "start", "options", "credit", "monte_carlo", "rounds", "grid")
ROUND_FIELDS = ("count", "problems", "reference", "sample")
# How to draw: fields of `sample` that values and evaluation may have for themselves.
DRAWING = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "max_tokens": 1,
    "sampler": "",
    "rows": 1,
    "stop_strings": ("",),
}
# Of those, what validation and evaluation take over from `sample`; top_k and top_p are `evaluate`'s own (greedy looks have none).
INHERITED = ("max_tokens", "rows", "sampler", "stop_strings")
# Numbers below which a field means nothing.
LEAST = {
    "validation_problems": 1,
    "test_problems": 1,
    "main_size": 0,
    "updates_at": 0,
    "drift": 0,
    "base.pieces": 1,
    "sample.n": 1,
    "sample.shard_roots": 1,
    "positives.cap": 1,
    "positives.min_distance": 0,
    "monte_carlo.negatives": 0,
    "monte_carlo.positives": 0,
    "monte_carlo.rollouts": 1,
    "monte_carlo.shard_roots": 1,
    "credit.k": 1,
    "credit.limit": 1,
    "credit.per_problem": 1,
    "train.batch": 1,
    "train.micro": 0,
    "train.epochs": 0,
    "train.updates": 0,
    "train.looks": 1,
    "train.patience": 0,
    "train.pack_length": 0,
    "train.vocab_chunk": 0,
    "rounds.count": 1,
    "rounds.problems": 1,
    "evaluate.n": 1,
    "evaluate.k": 1,
    **{f"{group}.{name}": 1 for group in ("sample", "monte_carlo", "evaluate") for name in ("max_tokens", "rows")},
}


def known_fields() -> dict[str, Any]:
    """Every field with a value of its kind (None: of any), as `configs/base.py` has them and what else the stages take."""
    from synthrl_jax.policy.decoder import DecoderConfig

    known = base.get_config().to_dict()
    shape = dict.fromkeys(field.name for field in dataclasses.fields(DecoderConfig))
    known["base"] |= {"pretrained": None, "shape": shape}  # shape: for planning where the weights are not at hand
    known["base"]["decoder"] = shape
    for group in ("sample", "monte_carlo", "evaluate"):
        known[group] = {**DRAWING, **known[group]}
    known["sft"] = known["train"] | {"grid": None}
    rounds = {"count": 1, "problems": 1, "reference": "round", "sample": known["sample"]}
    groups = {name: known[name] for name in ("credit", "monte_carlo")} | {
        "rounds": rounds,
        "options": None,
        "grid": None,
    }
    known["method"] = known["train"] | dict.fromkeys(METHOD_FIELDS, "") | groups
    return known


def compare(given: Mapping[str, Any], known: Mapping[str, Any], place: str = "", group: str = "") -> None:
    """UsageError for a field that `known` has not, one of another kind, or a number below its least.

    place: what the fields are called in the message; group: the group of the config that they are fields of.
    """
    for name, value in given.items():
        here, path = f"{place}.{name}".lstrip("."), f"{group}.{name}".lstrip(".")
        if name not in known:
            raise UsageError(f"{place or 'config'} has no field {name}; it has {', '.join(sorted(known))}")
        if here == "methods" or path in OPEN or known[name] is None:
            continue
        if isinstance(known[name], Mapping):
            if not isinstance(value, Mapping):
                raise UsageError(f"{here}={value!r}: a group of fields, {', '.join(sorted(known[name]))}")
            compare(value, known[name], here, path)
        elif not _alike(value, known[name]):
            raise UsageError(f"{here}={value!r}: expected a {type(known[name]).__name__}")
        elif path in LEAST and not value >= LEAST[path]:
            raise UsageError(f"{here}={value}: at least {LEAST[path]}")


def _alike(value: Any, known: Any) -> bool:
    if value is None:
        return known == ""  # a word that may be left out
    if isinstance(known, bool) or isinstance(value, bool):
        return isinstance(known, bool) and isinstance(value, bool)
    kinds = {float: (float, int), tuple: (tuple, list)}
    return isinstance(value, kinds.get(type(known), type(known)))


def sft_at(c: dict, size: int) -> dict:
    """SFT's entry at a size."""
    own = c["sft_by_size"].get(str(size), {})
    return merged({k: v for k, v in c["sft"].items() if k != "grid" or k not in own}, own)


def grids(c: dict, size: int) -> dict[str, dict]:
    """Name -> grid (field -> values) of SFT and the methods that have one at a size."""
    entries = {"sft": sft_at(c, size)} | (c["methods"] if size in c["sizes"] else {})
    return {name: entry["grid"] for name, entry in entries.items() if entry.get("grid")}


def all_sizes(c: dict) -> list[int]:
    """Every size at which something is trained."""
    return sorted({*c["sizes"], *c["sft_sizes"]})


def points(grid: Mapping[str, Any]) -> list[dict]:
    """Every combination of a grid's values, as changes of the training settings; groups are nested as in the settings."""
    if not isinstance(grid, Mapping):
        return list(grid)
    options = [[(name, point) for point in points(values)] for name, values in grid.items()]
    return [dict(point) for point in itertools.product(*options)]


def point_name(name: str, point: Mapping[str, Any]) -> str:
    """What training at a grid's point is called: the name and the point's values."""
    flat = lambda d: [v for x in d.values() for v in (flat(x) if isinstance(x, dict) else [x])]  # noqa: E731
    return f"{name} [{' '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in flat(point))}]"


def check(c: dict) -> None:
    """UsageError for what would only fail later, maybe hours later."""
    known = known_fields()
    compare(c, {name: value for name, value in known.items() if name != "method"})
    for name, entry in c["methods"].items():
        if not isinstance(entry, Mapping):
            raise UsageError(f"methods.{name}={entry!r}: a group of fields, {', '.join(sorted(known['method']))}")
    for name in ("sizes", "sft_sizes", "seeds", "tune_seeds"):
        _numbers(name, c[name], 1 if "sizes" in name else 0)
    if not c["seeds"] or not (c["sizes"] or c["sft_sizes"]):
        raise UsageError("seeds and sizes span the grid of cells: give at least one of each")
    if c["methods"] and not c["sizes"]:
        raise UsageError("sizes is empty: methods are trained at each of them (sft_sizes are for SFT alone)")
    sizes = list(c["mesh"].values())
    if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise UsageError(f"mesh {c['mesh']}: sizes of at least 1, at most one of them -1 (what the others leave)")
    if c["evaluate"]["n"] < c["evaluate"]["k"]:
        raise UsageError(f"evaluate.n={c['evaluate']['n']} samples are too few for pass@{c['evaluate']['k']}")
    if c["evaluate"]["split"] not in ("validation", "test"):
        raise UsageError(f"evaluate.split={c['evaluate']['split']!r}: validation or test")
    for name in c["evaluate"].get("also", ()):
        if name not in SOURCES and ":" not in name:
            raise UsageError(f"evaluate.also: unknown problem source {name!r}, known are {', '.join(SOURCES)}")
    if asking := _without_graph(c):
        raise UsageError(f"{asking}: for problems whose graph is known, as the source arithmetic makes")
    if not c["tune_seeds"] and any(grids(c, size) for size in all_sizes(c)):
        raise UsageError("a grid needs tune_seeds: the seeds whose validation accuracy chooses")
    try:
        template(c["prompt"])
        _check_words(c)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    for size, entry in c["sft_by_size"].items():
        if not size.isdigit() or not isinstance(entry, Mapping):
            raise UsageError(f"sft_by_size.{size}={entry!r}: a size, and a group of fields as `sft` has")
        _check_entry(c, "sft", sft_at(c, int(size)), known)
    _check_entry(c, "sft", c["sft"], known)
    for name, entry in c["methods"].items():
        _check_entry(c, name, entry, known)


def _without_graph(c: dict) -> str:
    """What asks for an oracle though the source is known to have no graphs; empty if nothing does."""
    source, credits = (
        c["problems"]["source"],
        {"": c["credit"]} | {n: e.get("credit") or {} for n, e in c["methods"].items()},
    )
    if source not in SOURCES or source == "arithmetic":
        return ""
    asking = ["drift"] if c.get("drift") else []
    asking += [f"{n}'s credit.pit_rule" for n, credit in credits.items() if credit.get("pit_rule") == "oracle"]
    asking += [n for n, entry in c["methods"].items() if (entry.get("method") or n) == "sft_complete"]
    return ", ".join(asking)


def _numbers(name: str, values: Sequence, least: int) -> None:
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name}={tuple(values)}: {value!r} is no whole number of at least {least}")


def _check_words(c: dict) -> None:
    """ValueError or TypeError for a source that does not take its settings, or a word that is none."""
    from synthrl_jax.grading.extract import extractor
    from synthrl_jax.policy.decoder import DecoderConfig

    name, settings = c["problems"]["source"], dict(c["problems"]["settings"])
    source = resolve(SOURCES.get(name, name), SOURCES, kind="problem source")
    if c["problems"]["path"]:
        settings["path"] = c["problems"]["path"]
    try:
        inspect.signature(source).bind("train", seed=0, count=1, **settings)
    except TypeError as error:
        raise ValueError(f"problems.settings: the source {name!r} has {error}") from None
    extractor(c["grading"])
    _check_drawing("sample", c["sample"])
    _check_drawing("monte_carlo", {**c["sample"], **c["monte_carlo"]})
    _check_drawing("evaluate", {**inherited(c), **c["evaluate"]})
    if not c["base"]["pretrained"]:
        DecoderConfig(**{"vocab_size": c["base"]["pieces"], **c["base"]["decoder"]})


def inherited(c: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `sample` that hold for validation and evaluation too; what is not set names no cell."""
    return {name: c["sample"][name] for name in INHERITED if c["sample"].get(name)}


def _check_drawing(place: str, fields: Mapping[str, Any]) -> None:
    from synthrl_jax.rollouts import Settings

    try:
        Settings(**{name: fields[name] for name in DRAWING if name in fields})
    except (TypeError, ValueError) as error:
        raise UsageError(f"{place}: {error}") from None


def _check_entry(c: dict, name: str, entry: dict, known: dict) -> None:
    """One method's entry, or `sft`'s, at every point of its grid."""
    place = name if name == "sft" else f"methods.{name}"
    for point in points(entry.get("grid") or {}):
        full = merged(entry, point)
        own = {k: v for k, v in full.items() if k not in METHOD_FIELDS or name == "sft"}
        compare(own, known["sft" if name == "sft" else "method"], place, "train")
        if name != "sft":
            compare({k: v or known["method"][k] for k, v in full.items() if k not in own}, known["method"], place)
        try:
            _check_training(c, name, full, merged(c["train"], {k: v for k, v in own.items() if k in TRAIN_FIELDS}))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{place}: {error}") from None
    rounds = entry.get("rounds") or {}
    if rounds and not {"count", "problems"} <= set(rounds):
        raise UsageError(f"{place}.rounds needs count and problems, both above 0")
    if rounds.get("reference", "round") not in ("round", "sft"):
        raise UsageError(f"{place}.rounds.reference={rounds['reference']!r}: round or sft")
    credit = merged(c["credit"], entry.get("credit") or {})
    sample, k = merged(c["sample"], rounds.get("sample") or {}), credit["k"]
    monte_carlo = {**c["monte_carlo"], **(entry.get("monte_carlo") or {})}
    rollouts = monte_carlo["rollouts"]
    if rollouts < k or sample["n"] < k:
        raise UsageError(f"monte_carlo.rollouts and sample.n must be at least credit.k={k}: Q is undefined below")
    _check_drawing(f"{place}.rounds.sample", sample)
    _check_drawing(f"{place}.monte_carlo", {**sample, **monte_carlo})
    try:
        crediting.check(credit)
        if monte_carlo["early_stop"]:
            from synthrl_jax.credit import early_stop

            early_stop.rounds_of(monte_carlo["looks"], rollouts, k, monte_carlo["early_stop"])
    except ValueError as error:
        raise UsageError(f"{place}: {error}") from None


def _check_training(c: dict, name: str, entry: dict, train: dict) -> None:
    """ValueError or TypeError for training that cannot be done."""
    from synthrl_jax.learning.step import find_loss

    training.check(train)
    if not (train["updates"] or train["epochs"]):
        raise ValueError("train.updates and train.epochs are both 0: nothing would be trained")
    find_loss("sft" if name == "sft" else methods.find(name, entry)[0].loss, train["loss_args"])
    ways = abs(c["mesh"]["data"] * c["mesh"]["fsdp"])
    micro = train["micro"] or train["batch"]
    if train["batch"] % micro or micro % ways:
        raise ValueError(
            f"a batch of {train['batch']} in micro-batches of {micro} does not divide over the mesh "
            f"(data {c['mesh']['data']} x fsdp {c['mesh']['fsdp']}); change train.batch, train.micro or mesh"
        )
