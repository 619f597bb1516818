"""Conditions on measures as trees: numbers, measures, + - * /, comparisons, and, or. Nothing else can be computed."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
SUMS: dict[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub}
PRODUCTS: dict[str, Callable[[float, float], float]] = {"*": operator.mul, "/": operator.truediv}
# How strongly operators bind, the weakest first.
STRENGTH = {"or": 1, "and": 2} | dict.fromkeys(COMPARISONS, 3) | dict.fromkeys(SUMS, 4) | dict.fromkeys(PRODUCTS, 5)
# What stands before a measure of an earlier run.
BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:g}"


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of a profile's turns; no `profile` stands for each in turn, no `stat` for a count.

    Of `baseline` it is one of an earlier run's.
    """

    profile: str | None
    metric: str
    stat: str | None = None
    baseline: bool = False

    @property
    def name(self) -> str:
        """The measure without its profile."""
        return f"{self.metric}.{self.stat}" if self.stat else self.metric

    def __str__(self) -> str:
        return ".".join(part for part in (BASELINE if self.baseline else None, self.profile, self.name) if part)


@dataclass(frozen=True, slots=True)
class Binary:
    """Two nodes and what joins them."""

    op: str
    left: Node
    right: Node

    def __str__(self) -> str:
        """As it could be written: a weaker operation on the left, or one as weak on the right, in brackets."""
        mine = STRENGTH[self.op]
        left = f"({self.left})" if strength(self.left) < mine else str(self.left)
        right = f"({self.right})" if strength(self.right) <= mine else str(self.right)
        return f"{left} {self.op} {right}"


Node = Number | Measure | Binary


def strength(node: Node) -> int:
    """How strongly a node holds together."""
    return STRENGTH[node.op] if isinstance(node, Binary) else max(STRENGTH.values()) + 1


def is_condition(node: Node) -> bool:
    """Whether it holds or does not, rather than being a number."""
    return isinstance(node, Binary) and (node.op in COMPARISONS or node.op in ("and", "or"))


def measures(node: Node) -> Iterator[Measure]:
    """Every measure in it, from left to right."""
    if isinstance(node, Measure):
        yield node
    elif isinstance(node, Binary):
        yield from measures(node.left)
        yield from measures(node.right)


def comparisons(node: Node) -> Iterator[Binary]:
    """Every comparison in it, from left to right."""
    if isinstance(node, Binary) and node.op in COMPARISONS:
        yield node
    elif isinstance(node, Binary):
        yield from comparisons(node.left)
        yield from comparisons(node.right)


def bound(node: Node, profile: str, earlier: str | None = None) -> Node:
    """The same, of this profile where it says none; of the baseline, of the one that is called `earlier` there."""
    if isinstance(node, Measure):
        return node if node.profile else replace(node, profile=(earlier if node.baseline else None) or profile)
    if isinstance(node, Binary):
        return replace(node, left=bound(node.left, profile, earlier), right=bound(node.right, profile, earlier))
    return node


def holds(node: Node, value: Callable[[Measure], float]) -> bool:
    """Whether a condition holds; raises ZeroDivisionError, and ArithmeticError where a side is no number."""
    assert isinstance(node, Binary)
    if node.op == "and":
        return holds(node.left, value) and holds(node.right, value)
    if node.op == "or":
        return holds(node.left, value) or holds(node.right, value)
    sides = number(node.left, value), number(node.right, value)
    if any(map(math.isnan, sides)):  # as inf - inf is: no comparison with it would ever hold
        raise ArithmeticError
    return COMPARISONS[node.op](*sides)


def number(node: Node, value: Callable[[Measure], float]) -> float:
    """What a number comes to; raises ZeroDivisionError."""
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Measure):
        return value(node)
    return (SUMS | PRODUCTS)[node.op](number(node.left, value), number(node.right, value))
