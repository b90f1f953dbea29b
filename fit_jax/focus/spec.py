"""Focus specifications: which features to focus on, which to ignore, and the label this asks for (paper, section 3)."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from fit_jax.errors import InputError
from fit_jax.focus.example import CORE, Example
from fit_jax.foreign import quoted

# The six types that the paper evaluates, in its order; `spurious` stands for any spurious feature.
FOCUS_TYPES: tuple[str, ...] = (
    "none",
    "focus(core)",
    "ignore(spurious)",
    "focus(core) & ignore(spurious)",
    "focus(spurious)",
    "focus(spurious) & ignore(core)",
)
SPURIOUS = "spurious"

_CLAUSE = re.compile(r"(focus|ignore)\s*\(([^()&∧]*)\)", re.IGNORECASE)
_FORM = 'write "none", "focus(core)", "ignore(genre)" or "focus(age) & ignore(core, gender)"'


@dataclass(frozen=True)
class FocusSpec:
    """The features to focus on and those to ignore; `core` is the core feature. Both empty: no focus instruction.

    Each tuple is brought into canonical order (core first, then by name, without repeats), so that equal
    specifications compare and print equal.

    Raises:
        InputError: One feature is both focused on and ignored.
    """

    focus: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "focus", _canonical(self.focus))
        object.__setattr__(self, "ignore", _canonical(self.ignore))
        both = [name for name in self.focus if name in self.ignore]
        if both:
            raise InputError(
                f"focus specification {quoted(str(self))} both focuses on and ignores {quoted(', '.join(both))}; "
                "keep it in one"
            )

    @classmethod
    def parse(cls, text: str) -> "FocusSpec":
        """Reads what `str` prints: clauses `focus(a, b)`, `ignore(c)` joined by `&` or `∧`; `none` or nothing is empty.

        Raises:
            InputError: The text has another form, or contradicts itself.
        """
        stripped = text.strip()
        names: dict[str, list[str]] = {"focus": [], "ignore": []}
        if stripped.lower() not in ("", "none", "∅"):
            for part in re.split("[&∧]", stripped):
                clause = _CLAUSE.fullmatch(part.strip())
                if clause is None:
                    raise InputError(f"focus specification {quoted(text)}: cannot read {quoted(part.strip())}; {_FORM}")
                listed = [" ".join(name.split()) for name in clause[2].split(",")]
                if not all(listed):
                    raise InputError(
                        f"focus specification {quoted(text)}: {quoted(clause[0])} lacks a feature name; {_FORM}"
                    )
                names[clause[1].lower()] += listed
        return cls(tuple(names["focus"]), tuple(names["ignore"]))

    def __str__(self) -> str:
        clauses = [f"{verb}({', '.join(names)})" for verb, names in self._clauses() if names]
        return " & ".join(clauses) or "none"

    def _clauses(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return ("focus", self.focus), ("ignore", self.ignore)


def check_spec(spec: FocusSpec, features: Collection[str]) -> None:
    """Checks that a specification names no feature but `core` and the given spurious ones.

    Raises:
        InputError: It names another; the message lists the known ones.
    """
    known = (CORE, *sorted(set(features) - {CORE}))
    unknown = [name for name in spec.focus + spec.ignore if name not in known]
    if unknown:
        raise InputError(
            f"focus specification {quoted(str(spec))}: unknown feature {quoted(', '.join(unknown))}; known: "
            f"{', '.join(known)}"
        )


def focus_label(example: Example, spec: FocusSpec) -> int:
    """The focus label y_focus: the label of the feature that the specification leaves the answer to.

    That is the one in focus, whatever else the specification names or leaves unnamed; without a focus the core feature,
    or, where the core is ignored, the spurious feature that is not ignored (the paper's table of focus instruction
    types). Several features can be left only where they have the same label.

    Returns:
        An index into `example.candidates`.

    Raises:
        InputError: The example lacks a feature, or the features left to answer by are none, or have different labels.
    """
    lacking = [name for name in spec.focus + spec.ignore if name != CORE and name not in example.spurious]
    if lacking:
        raise InputError(
            f"{example.named}: '{spec}' names {_quoted(lacking)}, which it lacks; "
            f"its features are {', '.join((CORE, *sorted(example.spurious)))}"
        )
    deciding: Iterable[str] = spec.focus
    if not deciding:
        deciding = [n for n in example.spurious if n not in spec.ignore] if CORE in spec.ignore else [CORE]
    labels = {name: example.label if name == CORE else example.spurious[name].label for name in deciding}
    if not labels:
        raise InputError(f"{example.named}: '{spec}' ignores every feature; leave one to answer by")
    if len(set(labels.values())) > 1:
        shown = ", ".join(f"{name} -> {example.candidates[label]!r}" for name, label in labels.items())
        raise InputError(
            f"{example.named}: '{spec}' leaves the answer to features whose labels differ ({shown}); focus on one"
        )
    return next(iter(labels.values()))


def spec_for(focus_type: str, feature: str, others: Iterable[str] = ()) -> FocusSpec:
    """The specification of a focus type (`FOCUS_TYPES`, or `ignore(core)`) for one spurious feature.

    `others` are further features to ignore.

    >>> str(spec_for("focus(spurious) & ignore(core)", "genre"))
    'focus(genre) & ignore(core)'
    """
    general = FocusSpec.parse(focus_type)
    check_spec(general, (SPURIOUS,))
    focus, ignore = (tuple(feature if name == SPURIOUS else name for name in names) for _, names in general._clauses())
    return FocusSpec(focus, (*ignore, *others))


def combined_specs(focus_type: str, features: Sequence[str]) -> tuple[FocusSpec, ...]:
    """The specifications of a focus type that name several of the spurious features.

    One stands where the type has its feature, and one or more of the others among those to ignore; each specification
    comes once. A type without a feature has none.

    >>> [str(spec) for spec in combined_specs("focus(spurious)", ("genre", "length"))]
    ['focus(genre) & ignore(length)', 'focus(length) & ignore(genre)']
    """
    if SPURIOUS not in focus_type:
        return ()
    found: dict[FocusSpec, None] = {}
    for feature in features:
        others = [other for other in features if other != feature]
        named = chain.from_iterable(combinations(others, count + 1) for count in range(len(others)))
        found.update((spec_for(focus_type, feature, ignored), None) for ignored in named)
    return tuple(found)


def held_out_specs(texts: Collection[str]) -> frozenset[FocusSpec]:
    """The specifications of the field `focus.held_out`.

    Raises:
        InputError: One cannot be read, contradicts itself, or stands there twice.
    """
    try:
        specs = frozenset(map(FocusSpec.parse, texts))
    except InputError as error:
        raise InputError(f"focus.held_out: {error}") from error
    if len(specs) < len(texts):
        raise InputError("focus.held_out: names an instruction twice; leave one out")
    return specs


def _canonical(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names), key=lambda name: (name != CORE, name)))


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(quoted(name) for name in names)
