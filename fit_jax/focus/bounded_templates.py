"""Chat templates rendered within limits: a template is a program that someone else wrote.

Jinja's sandbox keeps a template from Python's own attributes; here every loop, call, filter, test, operator, slice and
comparison is charged to a budget besides, by the size of what it reads and makes, before it makes it. So rendering ends
within seconds and stays small whatever the template does. What a template may use is what transformers gives it:
`raise_exception`, `strftime_now`, `tojson`, loop controls and `generation` blocks.
"""

import datetime
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from functools import wraps
from inspect import signature
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.filters import FILTERS
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from fit_jax.focus.template_charges import (
    CONCAT,
    LISTS,
    MADE,
    TOLL,
    TURNS,
    WEIGHED,
    WITHIN,
    Generation,
    HugeNumber,
    put_charges,
    weight,
)
from fit_jax.foreign import is_text

# Characters, items and steps that one rendering may cost; real templates need a hundredth.
BUDGET = 300_000
_LONGEST_SOURCE = 50_000
_LONGEST_OUTPUT = 100_000
_LARGEST_NUMBER = 1 << 64
# Jinja's own filters that chat templates have a use for; others make text of any length from a number.
_FILTERS = (
    "abs", "attr", "batch", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "forceescape", "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max",
    "min", "reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "slice", "sort",
    "string", "sum", "title", "trim", "unique", "upper",
)  # fmt: skip
# Those that do not read what they are given.
_LIGHT = ("count", "d", "default", "first", "last", "length")
# What the filters take that make more than they are given.
_PARAMETERS = {name: tuple(signature(FILTERS[name]).parameters) for name in ("indent", "join", "replace", "sum")}
_LARGEST_OPTION = 100  # of the numbers given to filters
# Methods that make text of any length from a number, or bytes, whose methods are not looked at.
_METHODS = ("center", "encode", "expandtabs", "ljust", "rjust", "to_bytes", "translate", "zfill")
# A width of many digits in a format, or one that is a value itself.
_WIDE = re.compile(r"\d{3,}|%[^a-z%]*\*|\{[^}]*\{")
# Characters times characters that a search for one text in another may compare in the time of a step.
_COMPARED = 256
_HOLDERS = (str, dict, Namespace, *LISTS)
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
        put_charges(template_ast, _LARGEST_NUMBER)
        for piece in environment.from_string(template_ast).generate(values):
            length += len(piece)
            if length > _LONGEST_OUTPUT:
                raise TemplateTooCostly(f"it makes more than {_LONGEST_OUTPUT} characters")
            pieces.append(piece)
    except TemplateError:
        raise
    except HugeNumber as error:
        raise TemplateTooCostly("it computes with huge numbers") from error
    except Exception as error:  # a template can make Python raise anything
        raise TemplateError(f"{type(error).__name__}: {error}") from error
    rendered = "".join(pieces)
    if not is_text(rendered):
        raise TemplateError("it makes NUL or half of a character (a lone surrogate)")
    return rendered


class _Bounded(ImmutableSandboxedEnvironment):
    """A sandbox for one rendering, with its budget."""

    intercepted_binops = frozenset(["+", "-", "*", "**", "%", "/", "//"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants too are computed under the budget
            extensions=[Generation, "jinja2.ext.loopcontrols"],
            finalize=self._written,
            cache_size=0,
        )
        self._left = BUDGET
        self.filters = {name: self._charged(name, self.filters[name]) for name in _FILTERS}
        self.filters |= {"tojson": self._charged("tojson", self._tojson), TURNS: self._turns, TOLL: self._spend}
        self.filters |= {WEIGHED: self._weighed, CONCAT: self._concat, WITHIN: self._within, MADE: self._spent}
        self.tests = {name: self._charged_test(name, test) for name, test in self.tests.items()}
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
        if isinstance(obj, Macro):  # whose body is charged as it runs
            self._spend(1)
            return self._spent(super().call(context, obj, *args, **kwargs))
        args = tuple(list(self._turns(value)) if _is_lazy(value) else value for value in args)
        self._spend(1 + self._weight_of([*args, *kwargs.values()]))
        name, owner = getattr(obj, "__name__", ""), getattr(obj, "__self__", None)
        if isinstance(owner, str | int) and name in _METHODS:
            raise TemplateTooCostly(f"it calls {name}")
        if isinstance(owner, list | tuple):  # it may compare its items with what is given
            self._spend(self._weight_of(owner))
        elif isinstance(owner, Sized):
            self._spend(len(owner) // 4)  # what it searches or copies
        if isinstance(owner, str):
            self._charge_search(owner, *args, *kwargs.values())
            if name == "replace" and len(args) >= 2:
                self._charge_replacing(owner, *args[:2])
            elif name == "join" and args and isinstance(args[0], Sized):
                self._spend(len(owner) * len(args[0]))
        return self._spent(super().call(context, obj, *args, **kwargs))

    def _charge_search(self, text: Any = None, *sought: Any) -> None:
        """Charges what may look for a text at each place of another."""
        if isinstance(text, str):
            self._spend(sum(len(text) * len(value) // _COMPARED for value in sought if isinstance(value, str)))

    def _charge_replacing(self, text: Any, old: Any, new: Any) -> None:
        self._spend(str(text).count(str(old)) * len(str(new)))

    def _check_format(self, text: Any, values: Any) -> None:
        if not isinstance(text, str) or _WIDE.search(text):
            raise TemplateTooCostly("it formats text by large numbers")
        self._spend(len(text) + self._weight_of(values) * max(1, text.count("{") + text.count("%")))

    def _charged(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that is charged for what it is given and for what it made."""

        @wraps(function)
        def charged(*given: Any, **kwargs: Any) -> Any:
            args = [self._turns(value) if _is_lazy(value) else value for value in given]
            if any(isinstance(value, int) and abs(value) > _LARGEST_OPTION for value in (*args[1:], *kwargs.values())):
                raise TemplateTooCostly("it gives a filter a large number")
            values = [value for value in (*args, *kwargs.values()) if isinstance(value, _HOLDERS)]
            if name not in _LIGHT:
                self._spend(self._weight_of(values))
                self._charge_search(*values)
            named = dict(zip(_PARAMETERS.get(name, ()), args)) | kwargs
            if name == "replace":
                self._charge_replacing(named.get("s"), named.get("old"), named.get("new"))
            elif name == "join":
                args[1] = list(args[1])
                self._spend(len(args[1]) * len(str(named.get("d"))))
            elif name == "indent":
                width = named.get("width")
                self._spend(str(args[0]).count("\n") * (len(width) if isinstance(width, str) else _LARGEST_OPTION))
            elif name == "sum" and not isinstance(named.get("start", 0), int | float):
                raise TemplateTooCostly("it adds up what are no numbers")
            return self._spent(function(*args, **kwargs))

        return charged

    def _charged_test(self, name: str, test: Callable[..., Any]) -> Callable[..., Any]:
        """A test that is charged for what it compares."""

        @wraps(test)
        def charged(value: Any, *args: Any) -> Any:
            if name == "in":
                return self._within(value, *args)
            if args:
                self._spend(self._weight_of([part for part in (value, *args) if isinstance(part, _HOLDERS)]))
            else:
                self._spend(1 + (len(value) // 4 if isinstance(value, str) else 0))
            return test(value, *args)

        return charged

    def _turns(self, values: Any, price: int = 0) -> Iterator[Any]:
        for value in values:
            self._spend(1 + price)
            yield value

    def _weight_of(self, value: Any) -> int:
        return weight(value, self._left)

    def _weighed(self, value: Any) -> Any:
        """The value, charged before it is compared or hashed."""
        if _is_lazy(value):
            return self._turns(value)
        return self._written(value)

    def _within(self, value: Any, holder: Any) -> bool:
        value, holder = self._weighed(value), self._weighed(holder)
        self._charge_search(holder, value)
        return value in holder

    def _written(self, value: Any) -> Any:
        """The value, charged before it is written out."""
        self._spend(self._weight_of(value))
        return value

    def _concat(self, values: list[Any]) -> str:
        return "".join(str(self._written(value)) for value in values)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        """As transformers' own, which escapes nothing for HTML."""
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        pieces = []
        for piece in encoder.iterencode(value):
            self._spend(len(piece))
            pieces.append(piece)
        return "".join(pieces)

    def _spent(self, value: Any) -> Any:
        """The value, charged by its size."""
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _LARGEST_NUMBER:
            raise TemplateTooCostly("it computes with huge numbers")
        self._spend(1 + (len(value) if isinstance(value, str | list | tuple | dict) else 0))
        return value

    def _spend(self, amount: int) -> None:
        self._left -= max(int(amount), 0)  # a template can find its way here
        if self._left < 0:
            raise TemplateTooCostly(f"it takes more than {BUDGET} steps and characters")


def _is_lazy(value: Any) -> bool:
    """Whether the value makes its items when they are asked for; a loop's own variable only looks like it."""
    return isinstance(value, Iterator) and not isinstance(value, LoopContext)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(str(message)[:200])
