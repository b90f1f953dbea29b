"""What constant answers reach, and splits that repeat another, against values computed by hand."""

from fit_jax.evaluation.reference_lines import reference_lines, repeated_splits, speaks_of, without_repeats

from .predictions import prediction


def test_reference_lines_are_what_constant_answers_reach():
    core = [prediction(uid=str(i), label=int(i == 0), core_label=int(i == 0)) for i in range(4)]
    spurious = [prediction(uid=str(i), label=1, core_label=0, focus="focus(spurious)", split="low") for i in range(4)]
    assert reference_lines(core + spurious) == {
        "an answer at random": {"iid": 0.5, "low": 0.5},
        "always the commonest y (core types)": {"iid": 0.75},
        "always the commonest y_s (spurious types)": {"low": 1.0},
        "always y_s (core types)": {"iid": 0.25},
        "always y (spurious types)": {"low": 0.0},
    }
    assert "always y_s (core types)" not in reference_lines([prediction(feature="")])


def test_reference_lines_of_bbq_name_the_unknown_answer():
    def row(label, condition):
        slices = {"unknown": "2", "condition": condition}
        return prediction(label=label, core_label=label, slices=slices, candidates=3, split="natural")

    lines = reference_lines([row(2, "ambig"), row(0, "disambig"), row(0, "disambig"), row(1, "disambig")])
    assert lines["always unknown (core types)"] == {"natural": 0.25}
    assert lines["unknown if ambiguous, else a coin (core types)"] == {"natural": 0.625}
    assert lines["always y_s (core types)"] == {"natural": 0.25}


def test_a_reference_line_speaks_of_the_types_that_it_names():
    lines = ("an answer at random", "always y_s (core types)", "always y (spurious types)")
    assert [[speaks_of(line, kind) for line in lines] for kind in ("core", "spurious")] == [
        [True, True, False],
        [True, False, True],
    ]


def test_flipped_repeats_low_where_there_are_two_answers():
    def split(name, tenths, candidates=2, count=500):
        return [
            prediction(uid=str(i), split=name, core_label=int(i < tenths * count / 10), candidates=candidates)
            for i in range(count)
        ]

    asked = split("high", 9) + split("low", 1) + split("flipped", 1)
    assert repeated_splits(asked) == {"flipped": "low"}
    assert {p.split for p in without_repeats(asked)} == {"high", "low"}
    assert repeated_splits(split("shifted_low", 1) + split("shifted_flipped", 1)) == {"shifted_flipped": "shifted_low"}
    assert repeated_splits(split("low", 1) + split("flipped", 2)) == {}
    assert repeated_splits(split("low", 1, 3) + split("flipped", 1, 3)) == {}
    assert repeated_splits(split("flipped", 1)) == {}
    # Of fifty examples two in one split and eight in the other are what one distribution gives; of five hundred
    # twenty and eighty, however often each is asked, are not.
    assert repeated_splits(split("low", 0.4, count=50) + split("flipped", 1.6, count=50)) == {"flipped": "low"}
    assert repeated_splits(split("low", 0.4) + 20 * split("flipped", 1.6)) == {}
    assert repeated_splits(20 * (split("low", 0.4, count=50) + split("flipped", 1.6, count=50))) == {"flipped": "low"}
