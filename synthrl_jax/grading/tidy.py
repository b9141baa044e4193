r"""One spelling for what looks the same: unicode signs, damaged escapes, spacing and size commands, currency signs."""

import re
import unicodedata

from synthrl_jax.grading import limits

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau upsilon "
    "phi chi psi omega"
).split()
_SIGNS = {
    **{chr(0x3B1 + i): f"\\{name} " for i, name in enumerate(_GREEK)},
    **dict(
        zip(
            "ΓΔΘΛΞΠΣΦΨΩϕϑ",
            (f"\\{name} " for name in "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega varphi vartheta".split()),
        )
    ),
    **dict.fromkeys("−–—‒‑‐﹣－", "-"),
    **dict.fromkeys("×✕✖⨯", "\\times "),
    **dict.fromkeys("·⋅∙•∗", "\\cdot "),
    **dict.fromkeys("÷", "\\div "),
    **dict.fromkeys("∕⁄", "/"),
    **dict.fromkeys("$€£¥₹¢₩₽＄￥￡", ""),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
    "√": "\\sqrt ",
    "∛": "\\sqrt[3]",
    "∞": "\\infty ",
    "≤": "\\le ",
    "⩽": "\\le ",
    "≥": "\\ge ",
    "⩾": "\\ge ",
    "≠": "\\ne ",
    "≈": "\\approx ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∖": "\\setminus ",
    "∈": "\\in ",
    "∅": "\\emptyset ",
    "±": "\\pm ",
    "∓": "\\mp ",
    "°": "^\\circ ",
    "∘": "\\circ ",
    "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}",
    "ℚ": "\\mathbb{Q}",
    "ℕ": "\\mathbb{N}",
    "ℂ": "\\mathbb{C}",
    "⌊": "\\lfloor ",
    "⌋": "\\rfloor ",
    "⌈": "\\lceil ",
    "⌉": "\\rceil ",
    "⟨": "\\langle ",
    "⟩": "\\rangle ",
    "′": "'",
    "’": "'",
    "∣": "|",
    "…": "\\ldots ",
    "％": "%",
}
_TABLE = str.maketrans(_SIGNS)
_UPPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿˣ", "0123456789+-nx")
_LOWER = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n")
_UPPERS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿˣ]+")
_LOWERS = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋ₙ]+")
_VULGAR = re.compile("[¼½¾⅐-⅞]")
# "\frac" read with escapes becomes a form feed and "rac", and so on
_DAMAGED = (
    (re.compile(r"\\?\x0c(?=rac|orall|loor)"), "\\\\f"),
    (re.compile(r"\\?\x08(?=oxed|inom|egin|eta\b|ar\b)"), "\\\\b"),
    (re.compile(r"\\?\t(?=ext\b|extbf\b|imes|frac|heta|an\b|binom|o\b)"), "\\\\t"),
    (re.compile(r"\\?\r(?=ight|floor|ceil|angle|ho\b)"), "\\\\r"),
)
_DROPPED = re.compile(
    r"""\\(?:left|right|mleft|mright|bigl?|bigr?|Bigl?|Bigr?|biggl?|biggr?|Biggl?|Biggr?|bigm|middle|displaystyle|textstyle
        |scriptstyle|limits|nolimits|quad|qquad|negmedspace|negthickspace|negthinspace|thinspace|medspace|thickspace
        |enspace|enskip|hfill|noindent|centering|small|large|Large|normalsize|par|strut|allowbreak|nonumber)(?![a-zA-Z])
        |\\(?:hspace|vspace|phantom|hphantom|vphantom|label|tag|color|textcolor)\*?\{[^{}]*\}
        |(?<!\\)\\[;:> ]|~""",
    re.VERBOSE,
)
_GROUPS = re.compile(r"(?<![0-9,.])([0-9]{1,3}(?:(?:\\,|\\!|\{,\\?!?\}|,\\!|,\\!\s?|\{,\}\\!)[0-9]{3})+)(?![0-9])")
_SPACED_GROUPS = re.compile(r"(?<![0-9,.])([0-9]{1,3}(?:(?:\\[;: ]|~|[\u00a0\u2009\u202f])[0-9]{3})+)(?![0-9])")
_NO_DIGIT = re.compile(r"[^0-9]")
_ROW_ENDS = re.compile(r"\\\\\[\s*-?[0-9.]+\s*(?:pt|em|ex|mm|cm)\s*\]|\\cr(?![a-zA-Z])")
_BRACKETS = re.compile(r"[\[\]]")
_OUTWARD = re.compile(r"([\[\]])(\s*+[^\[\](),]++,\s*+[^\[\](),]++)([\[\]])")
_SEPARATORS = re.compile(r"\\[,!]|[{},]|\s|!")
_CROSS = re.compile(r"(?<=[0-9])\s*[xX]\s*(?=10\s*\^)")
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z({\[$%])")
_ASIDE = re.compile(r"(?<=[0-9a-z%}])\s+\((?=[^()]*[A-Za-z]{4})[A-Za-z ,.'-]{4,80}\)\.?\s*\Z")
_INVISIBLE = re.compile(r"\\(?:left|right)\s*\.")
_QUOTED = re.compile(r"\s*(\*\*|__|`|\"|')(?=\S)(?P<inside>(?:(?!\1).)+)\1[.,]?\s*", re.DOTALL)
_SPACED = re.compile(r"\s*[-+]?[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?\s*")
_ABBREVIATED = re.compile(r"(?<![a-zA-Z])(sq|cu|approx|hrs?|mins?|secs?|ft|in|yds?|lbs?|oz)\.(?=\s*[a-z])")
_RUPEES = re.compile(r"\A\s*Rs\.?\s*(?=[0-9])")
_MODULUS = re.compile(r"\(\s*\\?[bp]?mod\b\s*([^()]{1,40})\)")
_DELIMITERS = re.compile(r"\\\(|\\\)|\\\[|\\\]|\\?\$")


def tidy(text: str) -> str:
    """`text` in one spelling; BeyondLimits when it is longer than any answer."""
    if len(text) > limits.LENGTH:
        raise limits.BeyondLimits(f"an answer of {len(text)} characters")
    if quoted := _QUOTED.fullmatch(text):
        text = quoted.group("inside")
    if _SPACED.fullmatch(text):
        text = text.replace(" ", "")
    text = _SPACED_GROUPS.sub(lambda digits: _NO_DIGIT.sub("", digits.group()), text)
    for damaged, whole in _DAMAGED:
        text = damaged.sub(whole, text)
    if not text.isascii():
        text = _UPPERS.sub(lambda run: "^{" + run.group().translate(_UPPER) + "}", text)
        text = _LOWERS.sub(lambda run: "_{" + run.group().translate(_LOWER) + "}", text)
        text = _VULGAR.sub(_vulgar, text)
        text = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
        if len(text) > 4 * limits.LENGTH:
            raise limits.BeyondLimits("an answer that grows")
    if "\\begin" in text:
        text = _ROW_ENDS.sub(r"\\\\ ", text)
    else:
        text = _DOUBLED.sub(r"\\", text).replace("\\\\", " ")
    text = _GROUPS.sub(lambda digits: _SEPARATORS.sub("", digits.group(1)), text)
    text = _CROSS.sub("*", text.replace("{,}", ","))
    text = _DELIMITERS.sub(" ", text).replace("\\!", "").replace("\\,", " ")
    text = _ASIDE.sub("", _DROPPED.sub(" ", _INVISIBLE.sub(" ", text)))
    text = _MODULUS.sub(r"\\pmod{\1}", _RUPEES.sub("", _ABBREVIATED.sub(r"\1 ", text)))
    if "[" in text or "]" in text:
        text = _inward(text)
    return text.strip().rstrip("\\").strip(" \n\r\t;:").rstrip(".,;:").strip()


def _vulgar(sign: re.Match) -> str:
    over, _, under = unicodedata.normalize("NFKC", sign.group()).partition("⁄")
    return f"\\frac{{{over}}}{{{under}}}" if under else sign.group()


def _inward(text: str) -> str:
    """`]1, 2[` as `(1, 2)`: open ends written by brackets that look away."""
    brackets = _BRACKETS.findall(text)
    if brackets[0] == "[" and brackets[-1] == "]":
        return text

    def turned(found: re.Match) -> str:
        opener, inside, closer = found.groups()
        return f"{'(' if opener == ']' else '['}{inside}{')' if closer == '[' else ']'}"

    return _OUTWARD.sub(turned, text)
