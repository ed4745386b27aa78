"""Labels and numbers: as a file holds them, as a gold answer writes them, and as they are read out of free text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from tasks.base import TaskError

# Rounding may move gold answers by this share of their standard deviation at most.
_ROUNDING = 0.01

# Minus signs and dashes that a model may have learned to write before a number.
_MINUS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"))
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_NUMBER = re.compile(
    r"(?<![\w.,])"  # not inside a word (C12), a longer number or a list of locants (1,2-)
    r"(?P<sign>[-+]?)"
    r"(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?P<exponent>[eE][-+]?[0-9]+)?"
    r"(?:\s*[x\u00d7\u00b7*]\s*10\s*(?:\^\s*(?P<power>[-+]?[0-9]+)|(?P<super>[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)))?"
    r"(?![.,]?[0-9])"  # nor the beginning of a longer number (1.2.3) or of one with a decimal comma (3,5)
    r"(?!-[A-Za-z])"  # nor a locant (2-propanol)
)
_DENIAL = re.compile(r"(?:\bnot|\bnever|n['\u2019]t)\s+(?:an?\s+|the\s+)?$", re.IGNORECASE)


def as_number(value: str) -> Decimal | None:
    """The finite number that a field holds, or None."""
    try:
        number = Decimal(value.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() and math.isfinite(float(number)) else None


def number_text(number: Decimal, decimals: int, trailing_zeros: bool = False) -> str:
    """`number` rounded half to even to at most `decimals` places, without an exponent; zero has no sign."""
    text = format(number, f".{decimals}f")
    if "." in text and not trailing_zeros:
        text = text.rstrip("0").removesuffix(".")
    return text.removeprefix("-") if not text.strip("-0.") else text


def check_rounding(label: str, values: Sequence[Decimal], decimals: int) -> None:
    """Makes sure that `decimals` places keep what tells `values` apart.

    Raises:
        TaskError: rounding moves them by more than 1 % of their standard deviation (root mean square).
    """
    exact = [float(value) for value in values]
    mean = math.fsum(exact) / len(exact)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in exact) / len(exact))

    def moved(places: int) -> float:
        squares = ((float(number_text(v, places)) - e) ** 2 for v, e in zip(values, exact, strict=True))
        return math.sqrt(math.fsum(squares) / len(exact))

    error = moved(decimals)
    if spread > 0 and error > _ROUNDING * spread:
        enough = next((p for p in range(decimals + 1, 13) if moved(p) <= _ROUNDING * spread), None)
        remedy = f"set task.decimals to {enough} or more" if enough is not None else "use a larger unit"
        raise TaskError(
            f"task.decimals is {decimals}: rounding would move the values of {label} by {error:.2g} (root mean "
            f"square), {error / spread:.1%} of their standard deviation, where {_ROUNDING:.0%} is allowed; {remedy}"
        )


def read_number(raw: str) -> str | None:
    """The one number of the first line that holds any, as Python reads it; None where there is none, or several."""
    for line in raw.translate(_MINUS).splitlines():
        found = {_value_of(match) for match in _NUMBER.finditer(line)}
        if found:
            text = found.pop()
            return text if not found and math.isfinite(float(text)) else None
    return None


def _value_of(match: re.Match[str]) -> str:
    power = match["power"] or (match["super"] or "").translate(_SUPERSCRIPT)
    text = f"{match['sign'].removeprefix('+')}{match['digits'].replace(',', '')}{match['exponent'] or ''}"
    return text if not power else format(Decimal(text).scaleb(int(power)), "f")


def read_label(raw: str, labels: Sequence[str]) -> str | None:
    """The label that free text gives: the one that it begins with, else the only one that it holds.

    None where it holds neither or both, and where it denies one ("not active"), since what a denial amounts to cannot
    be told by words alone. The longest label wins where one holds another ("toxic" in "not toxic").
    """
    by_length = sorted(labels, key=len, reverse=True)
    words = "|".join(f"({re.escape(label)})" for label in by_length)
    matches = list(re.finditer(rf"(?<!\w)(?:{words})(?!\w)", raw, re.IGNORECASE))
    if not matches:
        return None
    found = [by_length[(match.lastindex or 1) - 1] for match in matches]
    first = matches[0]
    begins = not re.search(r"\w", raw[: first.start()])
    if begins and re.match(r"\s*[.,;:!\n]|\s+[-(\u2013\u2014]|[^\w/]*$", raw[first.end() :]):
        return found[0]
    if len(set(found)) > 1 or _DENIAL.search(raw[: first.start()]):
        return None
    return found[0]


def check_answers(positive: str, negative: str) -> None:
    """Makes sure that each of the two answers is read as itself.

    Raises:
        TaskError: they are alike, empty, or no words.
    """
    for setting, word in (("positive", positive), ("negative", negative)):
        if not word or positive == negative or word != word.strip() or read_label(word, (positive, negative)) != word:
            raise TaskError(
                f"task.{setting} is {word!r}: the two answers must be words that can be told apart in a text, whatever "
                "their case, and have no blanks around them"
            )
