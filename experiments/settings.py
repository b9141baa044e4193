"""A config file and the flags that change it become a checked config; a wrong field ends the program with one line."""

import argparse
import ast
import contextlib
import importlib.util
import inspect
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

# Groups of which not every field is known: what a source or a loss takes. A flag may add fields to them, or
# give such a group as a whole, as a dict.
OPEN = ("problems.settings", "train.loss_args", "titles", "sft_by_size")


class UsageError(ValueError):
    """Wrong use, told in one line."""


def load_config(path: str, arguments: dict[str, str] | None = None) -> ConfigDict:
    """What `get_config` of a Python file returns, its fields locked. UsageError where there is none.

    arguments: fields by flag; those that `get_config` takes as parameters are passed to it, and taken out of the dict.
    """
    if not Path(path).is_file():
        raise UsageError(f"--config={path}: no such file")
    spec = importlib.util.spec_from_file_location(f"config_{Path(path).stem}", path)
    module = importlib.util.module_from_spec(spec)
    with _told_with_its_line(path):
        spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UsageError(f"--config={path}: the file defines no get_config()")
    known = inspect.signature(module.get_config).parameters
    given = {name: arguments.pop(name) for name in list(arguments or {}) if name in known}
    values = {name: parse(name, text, known[name].default) for name, text in given.items()}
    with _told_with_its_line(path):
        config = module.get_config(**values)
    if not isinstance(config, ConfigDict):
        raise UsageError(f"--config={path}: get_config() returns a {type(config).__name__}, not a ConfigDict")
    config.lock()
    return config


@contextlib.contextmanager
def _told_with_its_line(path: str):
    """An error of a config file as a UsageError that says where in the file."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        lines += [error.lineno] if isinstance(error, SyntaxError) and error.filename == path else []
        where = f":{lines[-1]}" if lines else ""
        said = (str(error).strip().split("\n") or [""])[0]
        raise UsageError(f"--config={path}{where}: {type(error).__name__}: {said}") from error


def override(config: ConfigDict, name: str, text: str) -> None:
    """Set the field `a.b.c` from a flag's text, in the type that the field has. UsageError for an unknown one outside of OPEN."""
    *parents, last = name.split(".")
    place: Any = config
    for depth, part in enumerate([*parents, last]):
        if ".".join(parents[:2]) in OPEN and isinstance(place, ConfigDict) and depth > 1 and part not in place:
            with place.unlocked():
                place[part] = ConfigDict() if depth < len(parents) else _literal(text)
            if depth == len(parents):
                return
        if not isinstance(place, ConfigDict) or part not in place:
            known = ", ".join(sorted(place)) if isinstance(place, ConfigDict) else "no fields"
            where = ".".join(["config", *parents[:depth]])
            raise UsageError(f"--config.{name}: no such field; {where} has {known}")
        if depth < len(parents):
            place = place[part]
    old = place[last]
    if name in OPEN and isinstance(value := _literal(text), dict):
        with place.unlocked():
            place[last] = ConfigDict(value)
        return
    if isinstance(old, ConfigDict):
        raise UsageError(f"--config.{name}: a group of fields; set one of {', '.join(sorted(old))}")
    place[last] = parse(name, text, old)


def _literal(text: str) -> Any:
    """The value that a text writes, for a field whose type is not known; itself where it writes none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse(name: str, text: str, old: Any) -> Any:
    """`text` as a value of the type of `old`; UsageError where it is none."""
    if text == "None" and (old is None or isinstance(old, str)):
        return None
    if old is None or isinstance(old, str):
        return text
    if isinstance(old, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"--config.{name}={text}: true or false")
        return text.lower() in ("true", "1")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise UsageError(f"--config.{name}={text}: expected a {type(old).__name__}") from None
    if isinstance(old, tuple):
        return tuple(value) if isinstance(value, list | tuple) else (value,)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if old is not None and type(value) is not type(old):
        raise UsageError(f"--config.{name}={text}: expected a {type(old).__name__}")
    return value


def parse_flags(
    parser: argparse.ArgumentParser, argv: list[str] | None = None
) -> tuple[argparse.Namespace, ConfigDict]:
    """The program's own flags, and the config of `--config=FILE` with every `--config.field=value` applied."""
    parser.add_argument(
        "--config", required=True, help="a file with get_config(); --config.field=value changes a field"
    )
    args, rest = parser.parse_known_args(argv)
    changes: dict[str, str] = {}
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--config."):
            raise UsageError(f"unknown argument {flag}")
        name, equals, text = flag.removeprefix("--config.").partition("=")
        if not equals:
            if not rest:
                raise UsageError(f"--config.{name}: no value given")
            text = rest.pop(0)
        changes[name] = text
    config = load_config(args.config, changes)
    for name, text in changes.items():
        override(config, name, text)
    return args, config


def merged(*parts: dict) -> dict:
    """Later parts win, groups merged field by field."""
    out: dict = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, dict) and isinstance(out.get(name), dict)
            out[name] = merged(out[name], value) if both else value
    return out
