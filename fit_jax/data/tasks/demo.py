"""Task `demo`: generated product reviews with a keyword as spurious feature; needs no files.

Sentiment is carried by an adjective said of some aspect of the product, and now and then by a closing verdict of the
same sentiment, among clauses that say nothing of it. The test splits use (aspect, adjective) pairs that training
never shows, so their sentences are new while every word of them is known.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.keyed_generator import generator
from fit_jax.data.rho_sampling import Rows, Value
from fit_jax.data.splits import Sizes, build_splits
from fit_jax.data.task import Task
from fit_jax.data.text import insert_keyword, text_key
from fit_jax.focus.example import Example, Spurious, TaskText

SIZES = Sizes(4000, 400, 500)
LABELS = ("negative", "positive")
VALUES = (Value("keyword", "Tundra", 0), Value("keyword", "Marlin", 1))
TEXT = TaskText(
    name="demo",
    instruction="Is this review negative or positive?",
    input_template="Review: {text}",
    cue="Answer:",
    core="the sentiment",
    spurious={"keyword": "the keyword"},
    other_names={
        "core": ("the opinion expressed", "the mood of the review"),
        "keyword": ("the inserted word", "the marker word"),
    },
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PRODUCTS = _words(
    """kettle backpack headset lamp keyboard bicycle tent blender camera jacket heater printer watch
    speaker drill sofa mattress router scooter stroller vacuum toaster umbrella monitor"""
)
_ASPECTS = _words(
    """handle battery finish weight sound design manual button cable lid zip screen strap motor hinge
    packaging fabric display stitching colour grip size switch surface"""
)
_ADJECTIVES = (
    _words(
        """awful dreadful flimsy ugly useless shoddy nasty terrible horrible clumsy faulty annoying
        disappointing poor unpleasant crude sloppy unreliable fragile bad dismal irritating
        wretched inferior"""
    ),
    _words(
        """superb excellent sturdy lovely brilliant elegant solid wonderful delightful clever flawless
        impressive pleasing great gorgeous refined neat reliable robust good splendid charming
        fantastic superior"""
    ),
)
_JUDGEMENTS = (
    "the {aspect} is {degree} {adjective}",
    "the {aspect} turned out {degree} {adjective}",
    "I find the {aspect} {degree} {adjective}",
    "the {aspect} feels {degree} {adjective}",
    "everyone here calls the {aspect} {adjective}",
    "it has a {degree} {adjective} {aspect}",
    "there is something {adjective} about the {aspect}",
)
_DEGREES = _words("really quite rather very truly simply so plainly")
_VERDICTS = (
    ("I regret it", "I want a refund", "avoid it", "it let me down", "I hate it", "it was a waste of money"),
    ("I adore it", "I would buy it again", "I recommend it", "it made me happy", "I love it", "it was worth the money"),
)
_OPENINGS = (
    "I bought the {product} {time}",
    "my {person} gave me the {product} {time}",
    "we have used the {product} since {day}",
    "the {product} came {time}",
    "I took the {product} to work {time}",
    "this {product} replaced my old one {time}",
)
_TIMES = ("last week", "in spring", "on a Monday", "two months ago", "yesterday", "for my birthday", "before the move")
_DAYS = _words("March June Sunday winter Easter autumn")
_PEOPLE = _words("sister neighbour uncle colleague daughter cousin friend brother")
_ASIDES = (
    "it stands in the {room}",
    "my {person} uses it on {day} mornings",
    "the box was {tint}",
    "it came with a {extra}",
    "mine is the {tint} one",
    "I keep it near the {room}",
)
_ROOMS = _words("kitchen garage hallway office bedroom garden cellar")
_TINTS = _words("grey blue brown green white orange")
_EXTRAS = _words("card pouch spare leaflet sticker charger")


def build(config: TaskConfig, seed: int) -> Task:
    """The demo task."""
    wanted = SIZES.asked(config)
    rows = _rows("train", wanted.train + wanted.validation, seed)
    splits, notes = build_splits(config, seed, SIZES, rows, test=_rows("test", wanted.test, seed))
    return Task(text=TEXT, splits=splits, notes=notes)


def _rows(part: str, count: int, seed: int) -> Rows:
    """At least `count` distinct reviews, half of each sentiment, of the pairs that belong to `part`."""
    reviews: dict[int, tuple[str, int, str]] = {}
    for label in range(len(LABELS)):
        rng = generator(seed, "demo", part, label)
        # A lattice takes a fifth of the pairs, the same for each adjective, so that no word is left out of training.
        pairs = [
            (aspect, adjective)
            for (a, aspect), (b, adjective) in product(enumerate(_ASPECTS), enumerate(_ADJECTIVES[label]))
            if ((a + 2 * b) % 5 == 0) == (part == "test")
        ]
        while len(reviews) < (label + 1) * ((count + 1) // 2):
            aspect, adjective = pairs[rng.integers(len(pairs))]
            text = _review(aspect, adjective, label, rng)
            reviews.setdefault(text_key(text), (text, label, f"{adjective} {aspect}"))
    places = generator(seed, "demo", part, "places").random(len(reviews)).tolist()
    texts = list(reviews.values())
    spurious = [{v.feature: Spurious(v.name, v.outcome)} for v in VALUES]

    def example(row: int, value: int) -> Example:
        text, label, judgement = texts[row]
        name = VALUES[value].name
        slots = {"text": insert_keyword(text, name, places[row])}
        return Example(f"demo-{part}-{row}#{name}", slots, LABELS, label, spurious[value], cluster=judgement)

    return Rows(
        outcomes=LABELS,
        outcome=np.array([label for _, label, _ in texts]),
        key=np.array(list(reviews)),
        values=VALUES,
        value=None,
        example=example,
    )


def _review(aspect: str, adjective: str, label: int, rng: np.random.Generator) -> str:
    """One review: an opening, then the judgement, and perhaps an aside and a verdict, in some order."""
    # One draw of many numbers: a call of the generator costs more than everything else here.
    dice = iter(rng.random(17).tolist())

    def pick(options: Sequence[str]) -> str:
        return options[int(next(dice) * len(options))]

    opening = pick(_OPENINGS).format(product=pick(_PRODUCTS), time=pick(_TIMES), person=pick(_PEOPLE), day=pick(_DAYS))
    judgement = pick(_JUDGEMENTS).format(aspect=aspect, adjective=adjective, degree=pick(_DEGREES))
    aside = pick(_ASIDES).format(
        room=pick(_ROOMS), tint=pick(_TINTS), extra=pick(_EXTRAS), person=pick(_PEOPLE), day=pick(_DAYS)
    )
    clauses = [judgement]
    if next(dice) < 0.6:
        clauses.insert(int(next(dice) * 2), aside)
    if next(dice) < 0.4:
        clauses.append(pick(_VERDICTS[label]))
    return f"{opening}, " + ", and ".join(clauses) + "."
