"""The match rule of freely written answers."""

import pytest

from fit_jax.evaluation.matching import UNPARSEABLE, match, normalise

PEOPLE = ("The grandfather", "The grandson", "Can't be determined")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The grandfather", 0),
        ("  the GRANDFATHER.\n", 0),
        ("grandson", 1),
        ("“The grandson!”", 1),
        ("Can’t be determined", 2),
        ("cant be determined", 2),
        ("It was the grandson who fell asleep.", 1),
        ("The answer can't be determined from the context", 2),
        ("The grandfather or the grandson", UNPARSEABLE),
        ("The grandfathers", UNPARSEABLE),
        ("Nobody knows", UNPARSEABLE),
        ("grand father", UNPARSEABLE),
        ("", UNPARSEABLE),
        ("...", UNPARSEABLE),
    ],
)
def test_exact_then_contained_else_unparseable(text, found):
    assert match(text, PEOPLE) == found


def test_a_candidate_within_a_longer_one_that_was_said_does_not_count():
    candidates = ("the man", "the man in the red hat", "unknown")
    assert match("I think the man in the red hat did", candidates) == 1
    assert match("I think the man did", candidates) == 0
    assert match("the man", candidates) == 0


def test_equal_candidates_are_the_first_and_articles_may_be_all_there_is():
    assert match("Maria", ("maria", "Maria!", "unknown")) == 0
    assert normalise("The") == ("the",)
    assert match("an A", ("A", "B")) == 0


def test_compatible_characters_are_the_same_word():
    assert normalise("ﬁne ＡＢＣ snake_case") == ("fine", "abc", "snake", "case")
