"""A config file and the flags that change it become a checked config; a wrong field ends the program with one line."""

import argparse
import ast
import importlib.util
import inspect
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict


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
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UsageError(f"--config={path}: the file defines no get_config()")
    known = inspect.signature(module.get_config).parameters
    given = {name: arguments.pop(name) for name in list(arguments or {}) if name in known}
    config = module.get_config(**{name: parse(name, text, known[name].default) for name, text in given.items()})
    config.lock()
    return config


def override(config: ConfigDict, name: str, text: str) -> None:
    """Set the field `a.b.c` from a flag's text, in the type that the field has. UsageError for an unknown one."""
    *parents, last = name.split(".")
    place: Any = config
    for depth, part in enumerate([*parents, last]):
        if not isinstance(place, ConfigDict) or part not in place:
            known = ", ".join(sorted(place)) if isinstance(place, ConfigDict) else "no fields"
            where = ".".join(["config", *parents[:depth]])
            raise UsageError(f"--config.{name}: no such field; {where} has {known}")
        if depth < len(parents):
            place = place[part]
    old = place[last]
    if isinstance(old, ConfigDict):
        raise UsageError(f"--config.{name}: a group of fields; set one of {', '.join(sorted(old))}")
    place[last] = parse(name, text, old)


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
