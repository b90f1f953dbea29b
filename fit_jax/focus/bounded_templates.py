"""Chat templates rendered within limits: a template is a program that someone else wrote.

Jinja's sandbox keeps a template from Python's own attributes; here every loop, call, filter and operator is charged to
a budget besides, by the size of what it makes, before it makes it. So rendering ends soon and stays small whatever the
template does. What a template may use is what transformers gives it: `raise_exception`, `strftime_now`, `tojson`,
loop controls and `generation` blocks.
"""

import datetime
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fit_jax.foreign import is_text

# Characters, items and steps that one rendering may cost; real templates need a hundredth.
BUDGET = 300_000
_LONGEST_SOURCE = 200_000
_LONGEST_OUTPUT = 100_000
_LARGEST_NUMBER = 1 << 64
# Jinja's own filters that chat templates have a use for; others make text of any length from a number.
_FILTERS = (
    "abs", "attr", "batch", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "forceescape", "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max",
    "min", "reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "slice", "sort",
    "string", "sum", "title", "trim", "unique", "upper",
)  # fmt: skip
_LARGEST_OPTION = 100  # of the numbers given to filters
# Methods that make text of any length from a number.
_METHODS = ("center", "expandtabs", "ljust", "rjust", "to_bytes", "translate", "zfill")
# A width of many digits in a format, or one that is a value itself.
_WIDE = re.compile(r"\d{3,}|%[^a-z]*\*|\{[^}]*\{")
_HOLDERS = (str, list, tuple, set, range, dict)
# The day on which every prompt is written, so that one run's prompts equal another's.
TODAY = datetime.datetime(2024, 7, 26)


class TemplateTooCostly(TemplateError):
    """A template takes more steps, or makes more text, than any prompt needs."""


def render_bounded(source: str, values: Mapping[str, Any]) -> str:
    """Renders a template.

    Args:
        source: The template.
        values: What it may use, by name.

    Raises:
        TemplateError: The template is malformed, refuses its values, or fails or costs too much while it renders.
    """
    if len(source) > _LONGEST_SOURCE:
        raise TemplateTooCostly(f"it has {len(source)} characters")
    environment = _Bounded()
    pieces, length = [], 0
    try:
        template_ast = environment.parse(source)
        _charge_loops(template_ast)
        for piece in environment.from_string(template_ast).generate(values):
            length += len(piece)
            if length > _LONGEST_OUTPUT:
                raise TemplateTooCostly(f"it makes more than {_LONGEST_OUTPUT} characters")
            pieces.append(piece)
    except TemplateError:
        raise
    except Exception as error:  # a template can make Python raise anything
        raise TemplateError(f"{type(error).__name__}: {error}") from error
    rendered = "".join(pieces)
    if not is_text(rendered):
        raise TemplateError("it makes NUL or half of a character (a lone surrogate)")
    return rendered


def _charge_loops(template_ast: nodes.Template) -> None:
    """Puts a charge on each turn of each loop, by the text in its body, and one on `~`, which no sandbox sees."""
    for loop in template_ast.find_all(nodes.For):
        text = sum(len(data.data) for data in loop.find_all(nodes.TemplateData))
        loop.iter = nodes.Filter(loop.iter, "_turns", [nodes.Const(text)], [], None, None).set_lineno(loop.lineno)
    _replace_joins(template_ast)


def _replace_joins(node: nodes.Node) -> None:
    for name, value in node.iter_fields():
        if isinstance(value, list):
            setattr(node, name, [_without_join(item) for item in value])
        else:
            setattr(node, name, _without_join(value))


def _without_join(value: Any) -> Any:
    if not isinstance(value, nodes.Node):
        return value
    _replace_joins(value)
    if isinstance(value, nodes.Concat):
        parts = nodes.List(value.nodes, lineno=value.lineno)
        return nodes.Filter(parts, "_concat", [], [], None, None, lineno=value.lineno)
    return value


class _Generation(Extension):
    """`{% generation %}` marks what the model wrote; it changes nothing of the text."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Bounded(ImmutableSandboxedEnvironment):
    """A sandbox for one rendering, with its budget."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants too are computed under the budget
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
            finalize=self._written,
            cache_size=0,
        )
        self._left = BUDGET
        kept = {name: self._charged(self.filters[name]) for name in _FILTERS}
        self.filters = {**kept, "tojson": self._charged(_tojson), "_turns": self._turns, "_concat": self._concat}
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _refuse, "strftime_now": TODAY.strftime}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator, charged for what it will make."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and not (numbers and abs(left) < _LARGEST_NUMBER and abs(right) < 64):
            raise TemplateTooCostly("it raises to a high power")
        if operator == "%" and not numbers:
            self._check_format(left, right)
        if operator == "*" and not numbers:
            for times, value in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(value, Sized):
                    self._spend(max(times, 0) * len(value))
        if operator == "+":
            self._spend(sum(len(value) for value in (left, right) if isinstance(value, Sized)))
        return self._spent(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, charged for its values."""
        sandboxed = super().wrap_str_format(value)
        if sandboxed is None:
            return None

        def charged(*args: Any, **kwargs: Any) -> str:
            self._check_format(value.__self__, (*args, *kwargs.values()))
            return sandboxed(*args, **kwargs)

        return charged

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A function, method or macro, charged for what it is given and for what it made."""
        self._spend(1)
        name, owner = getattr(obj, "__name__", ""), getattr(obj, "__self__", None)
        if isinstance(owner, str | int) and name in _METHODS:
            raise TemplateTooCostly(f"it calls {name}")
        if isinstance(owner, Sized):
            self._spend(len(owner) // 4)  # what it searches or copies
        if isinstance(owner, str):
            self._check_growth(name, owner, args)
        if isinstance(obj, LoopContext) and args:  # a recursive loop's next level
            args = (self._turns(args[0], _LARGEST_OPTION), *args[1:])
        return self._spent(super().call(context, obj, *args, **kwargs))

    def _check_growth(self, name: str, text: str, args: tuple[Any, ...]) -> None:
        """Charges what makes more text than it is given."""
        if name == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
            self._spend(text.count(args[0]) * len(args[1]))
        elif name == "join" and args and isinstance(args[0], Sized):
            self._spend(len(text) * len(args[0]) + self._weight(args[0]))

    def _check_format(self, text: Any, values: Any) -> None:
        if not isinstance(text, str) or _WIDE.search(text):
            raise TemplateTooCostly("it formats text by large numbers")
        self._spend(len(text) + self._weight(values) * max(1, text.count("{")))

    def _charged(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that is charged for what it is given and for what it made."""

        @functools.wraps(function)
        def charged(*given: Any, **kwargs: Any) -> Any:
            args = tuple(self._turns(value) if isinstance(value, Iterator) else value for value in given)
            self._spend(self._weight([value for value in args if isinstance(value, _HOLDERS)]))
            if any(isinstance(value, int) and abs(value) > _LARGEST_OPTION for value in (*args[1:], *kwargs.values())):
                raise TemplateTooCostly("it gives a filter a large number")
            values = [value for value in args if isinstance(value, _HOLDERS)]
            if function.__name__ == "do_replace" and values and isinstance(values[0], str):
                self._check_growth("replace", values[0], tuple(values[1:]))
            if function.__name__ == "sync_do_join" and len(values) >= 2 and isinstance(values[1], str):
                self._check_growth("join", values[1], (values[0],))
            if function.__name__ == "do_indent" and values and isinstance(values[0], str):
                self._spend(values[0].count("\n") * _LARGEST_OPTION)
            return self._spent(function(*args, **kwargs))

        return charged

    def _turns(self, values: Any, text: int = 0) -> Iterator[Any]:
        for value in values:
            self._spend(1 + text)
            yield value

    def _weight(self, value: Any) -> int:
        """About the characters that a value takes when it is written; no more is counted than the budget holds."""
        weight, left = 0, [value]
        while left and weight <= self._left:
            value = left.pop()
            weight += 1
            if isinstance(value, str):
                weight += len(value)
            elif isinstance(value, dict):
                weight += len(value)
                left += [part for pair in value.items() for part in pair]
            elif isinstance(value, _HOLDERS):
                weight += len(value)
                left += [] if isinstance(value, range) else value
        return weight

    def _written(self, value: Any) -> Any:
        """The value, charged before it is written out."""
        self._spend(self._weight(value))
        return value

    def _concat(self, values: list[Any]) -> str:
        return "".join(str(self._written(value)) for value in values)

    def _spent(self, value: Any) -> Any:
        """The value, charged by its size."""
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _LARGEST_NUMBER:
            raise TemplateTooCostly("it computes with huge numbers")
        self._spend(1 + (len(value) if isinstance(value, str | list | tuple | dict) else 0))
        return value

    def _spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise TemplateTooCostly(f"it takes more than {BUDGET} steps and characters")


def _refuse(message: str) -> NoReturn:
    raise TemplateError(str(message)[:200])


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """As transformers' own, which escapes nothing for HTML."""
    if any(len(str(part)) > 8 for part in (indent, *(separators or ()))):
        raise TemplateTooCostly("it indents JSON by much text")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
