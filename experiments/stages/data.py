"""Stage `data`: the problems of one split."""

import traceback
from pathlib import Path

from experiments.artifacts import write_jsonl
from synthrl_jax.problems.problem import load


def problems(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """`settings`: source, split and what the source takes; writes problems.jsonl."""
    arguments = dict(settings)
    source, split = arguments.pop("source"), arguments.pop("split")
    try:
        rows = load(source, split, seed=seed, **arguments)
    except TypeError as error:  # a setting of another type than the source reckons with
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"{label}: the source {source}, {Path(place.filename).name}:{place.lineno}: {error}"
        ) from error
    wanted = settings.get("count")
    if not rows or (wanted and len(rows) < wanted):
        raise ValueError(f"{label}: the source {settings['source']} has {len(rows)} problems, {wanted} were asked for")
    write_jsonl(out / "problems.jsonl", (problem.to_json() for problem in rows))
