"""Rows of JSON and JSONL files with the place of each, prepared TFDS data sets, and what every loader does with its problems."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from synthrl_jax.problems.problem import Problem, content_share, sample_order


def jsonl_rows(path, help_text: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(place `file:line`, row) of a JSONL file, or (place `file:element`, row) of one JSON list of objects.

    FileNotFoundError, with what to do; ValueError with file and line for what is no JSON object.
    """
    file = epath.Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{path}: no such file{'; ' if help_text else ''}{help_text}")
    text = file_text(file)
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not rows ({type(error).__name__}: {error})") from None
        rows = [(f"{path}:{i}", row) for i, row in enumerate(found, start=1)]
    else:
        rows = []
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                rows.append((f"{path}:{number}", json_row(line, f"{path}:{number}")))
    for where, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{where}: a row is an object, not {type(row).__name__}")
        yield where, row


def file_text(file) -> str:
    """A file's text, a byte-order mark left out; ValueError names one that is not UTF-8."""
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text (byte {error.start:,})") from None


def json_row(text: str, where: str) -> Any:
    """The JSON value of a text; ValueError with its place."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise ValueError(f"{where}: not a row ({type(error).__name__}: {error})") from None


def text_of(row: dict[str, Any], field: str, where: str) -> str:
    """A field's text, stripped; ValueError with its place where there is none."""
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: no text in field {field!r}")
    return value.strip()


def cut(problems: Iterable[Problem], split: str, share: float, *, single: bool, name: str) -> list[Problem]:
    """The train or validation part of a training file, by a hash of the question: it does not move when rows do.

    single: one file for all splits, so that the test part is cut out too, as large as the validation part.
    """
    parts: dict[str, list[Problem]] = {"train": [], "validation": [], "test": []}
    if split not in parts:
        raise ValueError(f"split {split!r}: {name} has {', '.join(parts)}")
    for problem in problems:
        place = content_share(problem.question)
        if place < share:
            parts["validation"].append(problem)
        elif single and place < 2 * share:
            parts["test"].append(problem)
        else:
            parts["train"].append(problem)
    return parts[split]


def chosen(problems: Sequence[Problem], count: int | None, seed: int, max_characters: int | None) -> list[Problem]:
    """`count` problems in an order by seed, those with more than `max_characters` in question and solution left out."""
    if max_characters is not None:
        problems = [p for p in problems if len(p.question) + len(p.solution) <= max_characters]
    order = sample_order(len(problems), seed)
    return [problems[i] for i in order[:count]]


def check_size(found: int, published: int, what: str, strict: bool | None) -> None:
    """Compare a split's size with the published one: ValueError if strict, one line on stderr if None, nothing if False."""
    if found == published or strict is False:
        return
    text = f"{what} has {found:,} rows, as published it has {published:,}: is the copy whole?"
    if strict:
        raise ValueError(f"{text} For a part on purpose set problems.settings.published=False")
    print(f"warning: {text}", file=sys.stderr, flush=True)


def tfds_directory(path, name: str):
    """The directory of a prepared TFDS data set: `path` itself, or `name`/<version> under it; None if there is none.

    An empty path is TFDS's own place: $TFDS_DATA_DIR or ~/tensorflow_datasets. Nothing is downloaded, or looked for elsewhere.
    """
    root = epath.Path(path or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    if (root / "dataset_info.json").exists():
        return root
    for base in (root / name, root):
        if base.is_dir():
            versions = [p for p in base.iterdir() if p.is_dir() and (p / "dataset_info.json").exists()]
            if versions and (base.name == name or base == root):
                return max(versions, key=lambda p: [int(n) if n.isdigit() else -1 for n in p.name.split(".")])
    return None


def tfds_rows(directory, split: str) -> Iterator[dict[str, Any]]:
    """Rows of a split of a prepared TFDS data set, texts as str. ValueError: no such split, or not in ArrayRecord files."""
    with contextlib.redirect_stderr(io.StringIO()):  # its import complains of a missing TensorFlow
        import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(directory))
    if split not in builder.info.splits:
        raise ValueError(f"{directory}: no split {split!r}, it has {', '.join(builder.info.splits)}")
    if builder.info.file_format.value != "array_record":
        raise ValueError(
            f"{directory} is not in ArrayRecord files, which alone are read without TensorFlow: "
            "prepare it again with file_format='array_record'"
        )
    for row in builder.as_data_source(split):
        yield {name: value.decode() if isinstance(value, bytes) else value for name, value in row.items()}
