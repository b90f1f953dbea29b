"""What a chat template computes without asking its environment is put under charges of it, before it is compiled.

Jinja's sandbox sees calls, filters, tests and operators. Loops, comparisons, slices, `~`, keys and the mere length of a
body pass it by: here they become filters, by names that no template can write.
"""

from collections.abc import ItemsView, KeysView, ValuesView
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.utils import Namespace

# Filters of the environment: items of a loop, a price, a value by its size, `~`, `in`, and what was made.
TURNS, TOLL, WEIGHED, CONCAT, WITHIN, MADE = "#turns", "#toll", "#weighed", "#concat", "#within", "#made"
# So many parts of a template are computed in the time that a step of its budget stands for.
_PARTS = 10
# What holds values whose sizes count.
LISTS = (list, tuple, set, range, KeysView, ValuesView, ItemsView)


class HugeNumber(Exception):
    """A template holds a number of more bits than any it has a use for."""


class Generation(Extension):
    """`{% generation %}` marks what the model wrote; it changes nothing of the text."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def put_charges(template: nodes.Template, largest: int) -> None:
    """Rewrites a parsed template in place.

    Args:
        template: The template.
        largest: Its greatest number.

    Raises:
        HugeNumber: It holds a greater one.
    """
    _put(template, largest)


def weight(value: Any, most: int) -> int:
    """About the characters that a value takes when it is written; of more than `most` no more is counted."""
    found, left = 0, [value]
    while left and found <= most:
        value = left.pop()
        found += 1
        if isinstance(value, str):
            found += len(value)
        elif isinstance(value, Namespace):
            left.append(object.__getattribute__(value, "_Namespace__attrs"))
        elif isinstance(value, dict):
            found += len(value)
            left += [part for pair in value.items() for part in pair]
        elif isinstance(value, LISTS):
            found += len(value)
            left += [] if isinstance(value, range) else value
    return found


def _put(node: nodes.Node, largest: int) -> int:
    """Rewrites all below a node; what it takes to go through it once, in parts."""
    cost = _PARTS * len(node.data) if isinstance(node, nodes.TemplateData) else 1
    if isinstance(node, nodes.Const) and isinstance(node.value, int) and abs(node.value) > largest:
        raise HugeNumber
    for name, value in node.iter_fields():
        parts = value if isinstance(value, list) else [value]
        cost += sum(_put(part, largest) for part in parts if isinstance(part, nodes.Node))
        setattr(node, name, [_charged(part) for part in value] if isinstance(value, list) else _charged(value))
    if isinstance(node, nodes.Compare) and not _is_search(node):
        node.expr = _filter(WEIGHED, node.expr)
        for operand in node.ops:
            operand.expr = _filter(WEIGHED, operand.expr)
    elif isinstance(node, nodes.Pair):
        node.key = _filter(WEIGHED, node.key)  # it is hashed
    elif isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice | nodes.Const):
        assert isinstance(node.arg, nodes.Expr)
        node.arg = _filter(WEIGHED, node.arg)
    price = nodes.Const(1 + cost // _PARTS, lineno=node.lineno)
    if isinstance(node, nodes.For):
        node.iter = _filter(TURNS, node.iter, price)
    if isinstance(node, nodes.Macro | nodes.CallBlock | nodes.Block) or (
        isinstance(node, nodes.For) and node.recursive
    ):
        node.body.insert(0, nodes.ExprStmt(_filter(TOLL, price), lineno=node.lineno))
    return cost


def _charged(value: object) -> object:
    """A part of a node, whose own parts are charged already."""
    if isinstance(value, nodes.Concat):
        return _filter(CONCAT, nodes.List(value.nodes, lineno=value.lineno))
    if isinstance(value, nodes.Getitem) and isinstance(value.arg, nodes.Slice):
        return _filter(MADE, value)
    if isinstance(value, nodes.Compare) and _is_search(value):
        found = _filter(WITHIN, value.expr, value.ops[0].expr)
        return found if value.ops[0].op == "in" else nodes.Not(found, lineno=value.lineno)
    return value


def _is_search(node: nodes.Compare) -> bool:
    """Whether it is `in` alone, which no chain of comparisons needs."""
    return len(node.ops) == 1 and node.ops[0].op in ("in", "notin")


def _filter(name: str, value: Any, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)
