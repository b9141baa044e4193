"""A tokenizer's own chat template: rendered as transformers renders it, in jinja2's sandbox, and turned into tokens.

One thing differs: templates that ask for today's date get none (`strftime_now` is not defined, and the released ones then take
a fixed date), as the same prompt tomorrow would be another one.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence

TEMPLATE_FILE, CONFIG_FILE = "chat_template.jinja", "tokenizer_config.json"
SPECIAL_FILE, ADDED_FILE = "special_tokens_map.json", "added_tokens.json"


def template_of(files: Mapping[str, bytes]) -> str:
    """The chat template among a tokenizer's files (of several the one named `default`). ValueError: there is none."""
    if TEMPLATE_FILE in files:
        return files[TEMPLATE_FILE].decode()
    found = fields(files, CONFIG_FILE).get("chat_template")
    if isinstance(found, list):
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}.get("default")
    if not isinstance(found, str):
        raise ValueError(
            f"prompt='chat': the tokenizer has no chat template ({TEMPLATE_FILE}, or chat_template in {CONFIG_FILE})"
        )
    return found


def special_texts(files: Mapping[str, bytes]) -> dict[str, str]:
    """Texts of the special tokens by name (bos_token, ...), as templates know them."""
    named = fields(files, SPECIAL_FILE) | fields(files, CONFIG_FILE)
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in named.items()}
    return {name: text for name, text in texts.items() if name.endswith("_token") and isinstance(text, str)}


def added_tokens(files: Mapping[str, bytes]) -> dict[str, int]:
    """Ids of the tokens, by text, that were added to a tokenizer beside its model."""
    found = {text: place for text, place in fields(files, ADDED_FILE).items() if isinstance(place, int)}
    for place, entry in (fields(files, CONFIG_FILE).get("added_tokens_decoder") or {}).items():
        if isinstance(entry, dict) and isinstance(entry.get("content"), str) and str(place).isdigit():
            found[entry["content"]] = int(place)
    return found


def fields(files: Mapping[str, bytes], name: str) -> dict:
    """A JSON object among a tokenizer's files; empty where there is no such file. ValueError: it is not JSON."""
    try:
        found = json.loads(files.get(name, b"{}"))
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def render(template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, str]) -> str:
    """The text that a template makes of messages of role and content, ready for the assistant's answer.

    ValueError: the template is no jinja2, needs what is not there, breaks out of its sandbox, or refuses these messages.
    """
    import jinja2

    try:
        return _compiled(template).render(
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=True,
            **special,
        )
    except (jinja2.TemplateError, TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the tokenizer's chat template fails: {type(error).__name__}: {reason}") from None


@functools.lru_cache(maxsize=8)
def _compiled(template: str):
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message):
        raise jinja2.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        # jinja2's own escapes what HTML would
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation(), loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    return environment.from_string(template)


@functools.cache
def _generation():
    """The block `{% generation %}` of templates for training, which here is only its body."""
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - as jinja2 asks for it

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return Generation


def split_special(text: str, special: Sequence[str]) -> list[str]:
    """The text cut around special tokens, the longest that fits first; empty parts are left out."""
    if not special:
        return [text]
    pattern = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))
    return [part for part in re.split(f"({pattern})", text) if part]
