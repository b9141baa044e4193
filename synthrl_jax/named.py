"""Names in a config become functions: a built-in word, or "module:function" from anywhere."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def resolve(word: str | Callable, table: Mapping[str, Any], *, kind: str = "function") -> Callable:
    """The function that `word` names: a callable itself, a key of `table`, or "module:function".

    Raises ValueError naming what is known, or what could not be imported.
    """
    if callable(word):
        return word
    found = table.get(word, word)
    if callable(found):
        return found
    module, colon, name = str(found).partition(":")
    if not (colon and module and name):
        raise ValueError(f"unknown {kind} {word!r}: use one of {', '.join(sorted(table))}, or 'module:function'")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{kind} {word!r} cannot be imported: {error}") from error
    if not callable(function):
        raise ValueError(f"{kind} {word!r} is not callable")
    return function
