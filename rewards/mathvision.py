"""MATH-Vision's rule (arXiv 2402.14804): the answer in a reply, as plain LaTeX, and what it equals; and a strict one.

The official script runs answers as Python after latex2sympy. Here `latex_number` reads them instead, which knows
numbers and arithmetic, and runs nothing.

The truth of a sample is the answer as a text, for multiple choice the letter; its meta holds `options`, [] for a free
answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from mmpost.rewards.options import answer_span, named_letter
from mmpost.types import Reply, Sample

_LEADS = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_REMOVED = (
    *((" ", ""), ("\\,", ""), ("\u221e", "\\infty"), ("+\\infty", "\\infty"), ("\\\\", "\\"), ("\n", "")),
    *((part, "") for part in ("\\text", "\\mbox")),
    ("bmatrix", "pmatrix"),
    *((part, "") for part in ("\\left", "\\right", "^{\\circ}", "^\\circ", "{m}^3", "m^3", "{units}", "units")),
    *((part, "") for part in ("{km}", "km", "\\!")),
    *(("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", "")),
    *((part, "") for part in ("^{\\circ}", "^\\circ", "\\$", "$", "\\%")),
    ("{.", "{0."),
)
"""What the script replaces in an answer, one after the other."""


def mathvision_answer(text: str) -> str:
    """The answer that MATH-Vision's script takes from a reply: a letter at either end, a number after "is ", the last
    box, or what follows "the answer is"; in lower case, without blanks, units and degrees."""
    text = text.strip()
    for letter in "ABCDE":
        ends, starts = (f" {letter}.", f" ({letter})."), (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        if text.endswith(ends) or text.startswith(starts):
            text = letter
    last = text.split("is ")[-1].rstrip(".")
    if _is_number(last):
        text = last
    if "oxed{" not in text:
        for lead in (form for each in _LEADS for form in (each, each.replace("the", "The"))):
            found = lead in text
            text = text.split(lead)[-1].strip()
            if found:
                text = text.split("\n")[0].split(". ")[0]
    elif text.count("oxed{") > 1:
        text = "\\boxed{" + text.split("oxed{")[-1]
    text = _plain_latex(text)
    for form in ("({})", "{{{}}}"):
        for letter in "abcde":
            text = text.replace(form.format(letter), letter)
    return text.rstrip(".").lstrip(":").strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _plain_latex(text: str) -> str:
    text = text.lower().replace("{}", "")
    start, end = text.find("oxed{"), text.rfind("}")
    if 0 <= start <= end - len("oxed{"):
        text = text[start + len("oxed{") : end]
    opening, closing = text.find("{"), text.find("}")
    if closing != -1 and not 0 <= opening < closing:
        text = text[:closing]
    text = text.split("=")[-1].split("\\approx")[-1]
    for old, new in _REMOVED:
        text = text.replace(old, new)
    text = "0" + text if text.startswith(".") else text
    if text.count("\\approx") == 1:
        text = text.split("\\approx")[1]
    text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text)
    if "sqrt" in text:
        text = _braced_fractions(text)
    if text == "0.5":
        return "\\frac{1}{2}"
    fraction = re.fullmatch(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)", text)
    return f"\\frac{{{fraction[1]}}}{{{fraction[2]}}}" if fraction else text


def _braced_fractions(text: str) -> str:
    """Braces around single characters after \\frac; the text as it is where it ends before there are two."""
    first, *rest = text.split("\\frac")
    for part in rest:
        if part.startswith("{"):
            first += f"\\frac{part}"
        elif len(part) < 2:
            return text
        else:
            first += f"\\frac{{{part[0]}}}" + (part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}")
    return first


_TOKEN = re.compile(
    r"(?P<number>[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)|(?P<blank>[\s$~]+|\\[,;: ]|\\q?quad|\\displaystyle)"
    r"|(?P<sign>\\left|\\right|\\[a-z]+|\\[{}%]|.)",
    re.DOTALL,
)
_DIGITS = tuple("0123456789")
_OPENING = {"(": ")", "{": "}", "[": "]", "\\{": "\\}"}
_ENDS = frozenset((")", "}", "]", "\\}", "&", "_", ".", ""))
"""Signs at which the script stops reading, whatever follows them."""
LONGEST, DEEPEST, DIGITS = 1_000, 40, 5_000
"""Limits of an answer as a number: characters, brackets in one another, digits of a power."""


class _Unreadable(ValueError):
    pass


class _Arithmetic:
    """A parser of sums of products of powers, by recursive descent."""

    def __init__(self, text: str) -> None:
        found = _TOKEN.finditer(text)
        self.tokens = [m[0] for m in found if m.lastgroup != "blank" and m[0] not in ("\\left", "\\right")]
        self.place = self.depth = 0

    @property
    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        token = self.next
        if wanted and token not in wanted:
            raise _Unreadable
        self.place += 1
        return token

    def sum(self) -> float:
        value = self.product()
        while self.next in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self) -> float:
        value = self.signed()
        while True:
            if self.next in ("*", "\\cdot", "\\times"):
                self.take()
                value *= self.signed()
            elif self.next in ("/", ":", "\\div"):
                self.take()
                value /= self.signed()
            elif self.next in (*_ENDS, "+", "-"):
                return value
            else:
                value *= self.power()

    def signed(self) -> float:
        sign = 1
        while self.next in ("+", "-"):
            sign *= 1 if self.take() == "+" else -1
        return sign * self.power()

    def power(self) -> float:
        euler = self.next == "e"
        value = math.e if euler else self.atom()
        if euler and (self.take() and self.next != "^"):
            raise _Unreadable
        while self.next in ("^", "!", "\\%"):
            sign = self.take()
            if sign == "^":
                value = _power(value, self.group("{") if self.next == "{" else self.atom(brackets=False))
            elif sign == "!":
                value = _factorial(value)
            else:
                value /= 100
        return value

    def group(self, opening: str) -> float:
        self.depth += 1
        self.take(opening)
        if self.depth > DEEPEST:
            raise _Unreadable
        value = self.sum()
        self.take(_OPENING[opening])
        self.depth -= 1
        return value

    def atom(self, brackets: bool = True) -> float:
        if self.next in _OPENING and brackets:
            return self.group(self.next)
        token = self.take()
        if token[-1:] in _DIGITS:
            value = float(token.replace(",", ""))
            return int(token.replace(",", "")) if "." not in token else int(value) if value.is_integer() else value
        if token in ("\\pi", "\\tau"):
            return math.pi if token == "\\pi" else math.tau
        if token in ("\\frac", "\\dfrac", "\\tfrac") and brackets:
            return self.group("{") / self.group("{")
        if token == "\\sqrt" and brackets:
            root = self.group("[") if self.next == "[" else 2
            return _power(self.group("{"), 1 / root)
        raise _Unreadable


def _power(base: float, exponent: float) -> float:
    if abs(exponent) * math.log10(max(abs(base), 2)) > DIGITS:
        raise _Unreadable
    value = base**exponent
    if isinstance(value, complex):
        raise _Unreadable
    return value


def _factorial(value: float) -> float:
    if not isinstance(value, int) or not 0 <= value <= LONGEST:
        raise _Unreadable
    return math.factorial(value)


def latex_number(text: str) -> float | None:
    """The value of arithmetic in LaTeX: + - * / : and juxtaposition, powers, fractions, roots, pi, tau, powers of e,
    factorials, percent and brackets; None for anything else. What follows a full stop or a bracket too many is not
    read."""
    if len(text) > LONGEST:
        return None
    parser = _Arithmetic(text)
    try:
        value = parser.sum()
    except (_Unreadable, ZeroDivisionError, OverflowError):
        return None
    return value if parser.next in _ENDS and abs(value) < math.inf else None


def _rounded_tuple(text: str) -> str:
    """A pair or longer tuple or list with its numbers rounded; else the text as it is."""
    parts = text[1:-1].split(",")
    if (text[0] + text[-1]) not in ("()", "[]") or len(parts) < 2:
        return text
    rounded = []
    for part in parts:
        value = None if "infty" in part or part in ("a", "-a") else latex_number(part)
        if value is None and "infty" not in part and part not in ("a", "-a"):
            return text
        rounded.append(part if value is None else str(round(value, 2)))
    return f"{text[0]}{','.join(rounded)}{text[-1]}"


def equal_answers(truth: str, answer: str) -> bool:
    """Whether MATH-Vision's script takes two answers to be equal: the same texts, tuples of the same numbers, or the
    same number, all to two decimals. Nothing equals an empty answer."""
    truth, answer = truth.lower(), answer.lower()
    if not truth.replace(" ", "") or not answer.replace(" ", ""):
        return False
    if truth.strip() == answer.strip():
        return True
    truth, answer = _rounded_tuple(truth), _rounded_tuple(answer)
    if truth == answer:
        return True
    values = latex_number(truth), latex_number(answer)
    return None not in values and round(values[0] or 0, 2) == round(values[1] or 0, 2)


def is_answer(sample: Sample, answer: str) -> float:
    """1 if an answer equals the truth, or the text of the right option, by `equal_answers`; else 0."""
    options, truth = sample.meta["options"], str(sample.truth)
    option = options[ord(truth) - ord("A")] if options else ""
    return float(equal_answers(truth, answer) or equal_answers(option, answer))


def strict_answer(sample: Sample, text: str) -> str | None:
    """The letter of the option that a reply names, by letter, words or value, or its free answer; None without one."""
    options: Sequence[str] = sample.meta["options"]
    span = answer_span(text)
    if not options:
        return span or None
    letter = named_letter(text, options)
    if letter is None:
        same = [i for i, option in enumerate(options) if _same_value(option, span)]
        letter = chr(ord("A") + same[0]) if len(same) == 1 else None
    return letter


def strict_score(sample: Sample, reading: str | None) -> float:
    """1 if a `strict_answer` is the truth, as text or as a number; else 0."""
    truth = str(sample.truth)
    if reading is None or sample.meta["options"]:
        return float(reading == truth)
    plain = _plain_latex(reading)
    return float((bool(plain) and plain == _plain_latex(truth)) or _same_value(truth, reading))


def _same_value(truth: str, answer: str) -> bool:
    values = latex_number(_plain_latex(truth)), latex_number(_plain_latex(answer))
    return None not in values and math.isclose(values[0] or 0, values[1] or 0, rel_tol=1e-6, abs_tol=1e-9)


def mathvision(sample: Sample, reply: Reply) -> float:
    """1 if the answer in the reply equals the truth as MATH-Vision scores it, else 0."""
    return is_answer(sample, mathvision_answer(reply.text))


def mathvision_strict(sample: Sample, reply: Reply) -> float:
    """1 if the reply gives the right option, or the right answer as text or number, else 0."""
    return strict_score(sample, strict_answer(sample, reply.text))
