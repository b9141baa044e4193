"""Stages `sft` and `train`: rows, the training loop, and the best parameters by validation."""

import dataclasses
import functools
import json
from pathlib import Path

from experiments import methods, training
from experiments.artifacts import Artifacts, read_jsonl, read_problems, write_jsonl
from experiments.cells import ASIDE, MANIFEST, manifest_of, slug
from experiments.fields import point_name
from experiments.settings import merged
from experiments.stages import STAGES
from experiments.stages.base import load_policy, load_sampler, save_policy
from experiments.stages.evaluate import greedy_accuracy
from experiments.stages.prompts import teacher_row
from synthrl_jax import pod, remote
from synthrl_jax import policy as policies
from synthrl_jax.credit.example import Example
from synthrl_jax.learning.trainer import train
from synthrl_jax.policy import scoring, sharding
from synthrl_jax.rollouts.processes import share_of


def sft(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """pi_sft: the base model fine-tuned on the teacher's solutions, at its best validation point."""
    settings = with_choice(settings, inputs)
    if taken_over("sft", settings, inputs, out, seed, label):
        return
    base = load_policy(inputs["base"], mesh_of(settings["mesh"]))
    rows = [teacher_row(p, base.tokenizer, settings["prompt"]) for p in read_problems(inputs["data"])]
    _fit(settings, base, rows, "sft", inputs["validation"], out, seed, label)


def method(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """One method from pi_sft (in rounds: from the policy that sampled) or the base model, on rows made of the earlier cells."""
    entry, options = methods.find(settings["name"], settings)
    settings = with_choice(settings, inputs)
    if taken_over("train", settings, inputs, out, seed, label):
        return
    start = load_policy(inputs[entry.start], mesh_of(settings["mesh"]))
    row = functools.partial(teacher_row, tokenizer=start.tokenizer, template=settings["prompt"])
    artifacts = Artifacts(inputs, seed, row, start.tokenizer)
    rows = methods.resolve(entry.examples, {})(artifacts, **options)
    if not rows:
        # Nothing to learn from is a result too: the policy stays what it was, and the report says so.
        print(f"{label}: no rows to learn from (too few right or wrong samples); the policy stays as it is", flush=True)
        save_policy(out, start.config, start.params, start.tokenizer)
        write_jsonl(out / "looks.jsonl", [])
        write_jsonl(out / "summary.jsonl", [{"rows": 0, "updates": 0, "best_update": 0, "tokens": 0}])
        return
    if entry.needs_reference:
        # the reference's log-probabilities are computed once and travel with the rows
        reference = load_sampler(inputs.get("reference", inputs["sft"]), settings)
        rows = with_reference(rows, reference, settings["train"].get("vocab_chunk", 0))
    _fit(settings, start, rows, entry.loss, inputs["validation"], out, seed, label)


def with_choice(settings: dict, inputs: dict[str, Path]) -> dict:
    """The settings with the point of the grid that the cell `choice` names."""
    if "choice" not in inputs:
        return settings
    (choice,) = read_jsonl(inputs["choice"] / "choice.jsonl")
    return {**settings, "train": merged(settings["train"], choice["point"])}


def taken_over(stage: str, settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> bool:
    """Whether the point that `choice` names was trained on this seed and these inputs while the grid was searched: then the
    result is a copy of that cell, byte for byte what training again would give. Rounds train again, and so does a pod, whose
    processes need not see the same files at the same time."""
    if "choice" not in inputs or pod.count() > 1:
        return False
    (choice,) = read_jsonl(inputs["choice"] / "choice.jsonl")
    name, at = label.split(" N=")
    place = slug(f"{point_name(name, choice['point'])} N={at}")
    asked = {"stage": stage, "version": STAGES[stage][1], "seed": seed, "settings": _resolved(settings)}
    asked["inputs"] = {role: manifest_of(cell)["fingerprint"] for role, cell in inputs.items() if role != "choice"}
    for cell in inputs["choice"].parent.glob(f"{place}-*"):
        found = manifest_of(cell) if cell.name[:-13] == place and (cell / MANIFEST).exists() else {}
        if any(found.get(field) != asked[field] for field in ("stage", "version", "seed", "inputs")):
            continue
        if _resolved(found["settings"]) != asked["settings"]:
            continue
        print(f"{label}: {found['label']}, which is trained already", flush=True)
        for file in remote.files(cell):
            inside = file.relative_to(cell)
            if inside.parts[0] not in ASIDE:
                (out / inside).parent.mkdir(parents=True, exist_ok=True)
                (out / inside).write_bytes(file.read_bytes())
        return True
    return False


def _resolved(settings: dict) -> dict:
    """A training cell's settings as its manifest has them, whether or not a field's default is written out."""
    return json.loads(json.dumps({**settings, "train": training.without_defaults(settings["train"])}))


def with_reference(rows: list[Example], reference, vocab_chunk: int = 0) -> list[Example]:
    """The rows with the reference policy's log-probabilities; vocab_chunk: as in training."""
    config = dataclasses.replace(reference.config, vocab_chunk=vocab_chunk)

    def score(at: list[int]) -> list:
        return scoring.score_sequences(config, reference.params, [rows[i].tokens for i in at])

    names = [f"row {i}" for i in range(len(rows))]
    # of a pod each process scores its share; all score everything together where the reference spans their devices
    together = share_of(reference)[1] < pod.count()
    scores = score(list(range(len(rows)))) if together else pod.shared(names, score, "reference scores")
    return [dataclasses.replace(row, ref_logprobs=found) for row, found in zip(rows, scores)]


def _fit(
    settings: dict, start, rows: list[Example], loss: str, validation: Path, out: Path, seed: int, label: str
) -> None:
    tokenizer, t = start.tokenizer, settings["train"]
    mesh = mesh_of(settings["mesh"])
    batches = training.batches(rows, t, seed, tokenizer.pad_id)
    updates = t["updates"] or batches.updates(t["epochs"])
    train_settings = training.settings(t, loss, updates)
    problems = read_problems(validation)
    validate = functools.partial(greedy_accuracy, start, problems, settings["prompt"], settings["validation"])
    config = training.decoder_config(start.config, t)
    result = train(
        config, start.params, batches, train_settings, validate=validate, workdir=out, mesh=mesh, label=label
    )
    save_policy(out, start.config, result.params, tokenizer)
    looks = [{"update": update, "validation_accuracy": round(score, 6)} for update, score in result.looks]
    write_jsonl(out / "looks.jsonl", looks)
    tokens = float(sum(len(row.tokens) for row in rows)) * updates * t["batch"] / batches.units
    summary = {"rows": len(rows), "updates": updates, "best_update": result.best_update, "tokens": round(tokens)}
    summary |= {
        "validation_accuracy": dict(result.looks)[result.best_update],
        "checksum": policies.checksum(result.params),
    }
    write_jsonl(out / "summary.jsonl", [summary])


def mesh_of(sizes: dict):
    """The mesh of the config, or None for a single device."""
    if all(size == 1 for size in sizes.values()):
        return None
    return sharding.make_mesh(**sizes)
