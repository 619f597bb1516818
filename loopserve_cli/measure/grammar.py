"""Conditions as text: read by hand, by the strength of operators, so that nothing but a condition can be written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from loopserve_cli.measure.expression import STRENGTH, Binary, Measure, Node, Number, is_condition

# The measure that the text has at a place, and where it ends; None where the text there is no name.
ReadMeasure = Callable[[str, int], tuple[Measure, int] | None]

OPERATOR = re.compile(r">=|<=|==|!=|>|<|\+|-|\*|/|and\b|or\b")
NUMBER = re.compile(r"((\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|inf\b)(?![\w.])")
SPACE = re.compile(r"\s*")
# Longer or deeper ones would be no condition that a person wrote.
LONGEST = 500
DEEPEST = 20
UNARY = STRENGTH["*"]


class GrammarError(ValueError):
    """The text is no condition; the message says what is wrong where."""


def parse(text: str, read_measure: ReadMeasure) -> Node:
    """The condition that `text` is; raises GrammarError, and what `read_measure` raises for a name it does not know."""
    if len(text) > LONGEST:
        raise GrammarError(f"it is longer than {LONGEST} characters")
    reader = _Reader(text, read_measure)
    node = reader.node(0, 0)
    if reader.place < len(text):
        raise GrammarError(f"{text[reader.place :]!r} is left over")
    if not is_condition(node):
        raise GrammarError("nothing is compared")
    return node


class _Reader:
    """A place in the text."""

    def __init__(self, text: str, read_measure: ReadMeasure) -> None:
        self.text = text
        self.read_measure = read_measure
        self.place = 0

    def node(self, weakest: int, depth: int) -> Node:
        """As much as operators stronger than `weakest` hold together."""
        left = self._operand(depth)
        while (op := self._operator()) is not None and STRENGTH[op] > weakest:
            self.place += len(op)
            right = self.node(STRENGTH[op], depth)
            left = _joined(op, left, right)
        return left

    def _operator(self) -> str | None:
        self._skip_space()
        match = OPERATOR.match(self.text, self.place)
        return match[0] if match else None

    def _operand(self, depth: int) -> Node:
        """A number, a measure, something in brackets, or one of these after a minus."""
        self._skip_space()
        if depth > DEEPEST:
            raise GrammarError(f"brackets and signs are deeper than {DEEPEST}")
        found = self.text[self.place : self.place + 1]
        if found == "(":
            self.place += 1
            inner = self.node(0, depth + 1)
            self._skip_space()
            if self.text[self.place : self.place + 1] != ")":
                raise GrammarError("a bracket is not closed")
            self.place += 1
            return inner
        if found == "-":
            self.place += 1
            operand = self.node(UNARY, depth + 1)
            return Number(-operand.value) if isinstance(operand, Number) else _joined("-", Number(0), operand)
        number = NUMBER.match(self.text, self.place)
        if number is not None:
            self.place = number.end()
            return Number(math.inf if number[0] == "inf" else float(number[0]))
        measure = self.read_measure(self.text, self.place)
        if measure is None:
            raise GrammarError(
                f"{self.text[self.place :]!r} begins neither a number nor a measure" if found else "it ends"
            )
        self.place = measure[1]
        return measure[0]

    def _skip_space(self) -> None:
        match = SPACE.match(self.text, self.place)
        assert match is not None
        self.place = match.end()


def _joined(op: str, left: Node, right: Node) -> Node:
    """Both, where the operator joins such: numbers to a number or a comparison, conditions to a condition."""
    wants_conditions = op in ("and", "or")
    for side in (left, right):
        if is_condition(side) != wants_conditions:
            raise GrammarError(f"{op} stands between {'conditions' if wants_conditions else 'numbers'}, not {side}")
    return Binary(op, left, right)
