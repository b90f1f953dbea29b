"""What is asked on the page, without the page: links, decoys, answers side by side and their HTML."""

import re
from types import SimpleNamespace
from urllib.parse import parse_qs

import pytest

from fit_jax import InputError
from fit_jax.api import Answer, Attribution
from fit_jax.playground import __main__ as command
from fit_jax.playground import models, views
from fit_jax.playground.question import Question, ask, attribute, contradiction, from_query, to_query

TASK = SimpleNamespace(slots=("premise", "hypothesis"), features=("core", "genre", "length"))
HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{constructor}} `a` \u202e\x1b[2J \"'&"


class Model:
    """Answers `no` where the text holds the word `turn`, else `yes`; notes what it is asked."""

    def __init__(self, yes="yes", no="no"):
        self.yes, self.no, self.asked = yes, no, []

    def ask(self, texts, **options):
        self.asked.append((texts, options))
        said = self.no if "turn" in " ".join(texts.values()) else self.yes
        shares = {self.yes: 0.75, self.no: 0.25} if said == self.yes else {self.yes: 0.25, self.no: 0.75}
        return Answer(said, shares, options.get("instruction", "Look at it."), options.get("kind", "focus(core)"))

    def ask_all(self, texts, candidates=()):
        return [self.ask(texts, kind=kind) for kind in ("none", "focus(core)")]

    def attribute(self, texts, **options):
        return Attribution(self.ask(texts, **options).answer, tuple(texts.values()), (0.5,) * len(texts))


QUESTION = Question(
    {"premise": "a b c d", "hypothesis": "ü & = ?"},
    focus=("genre",),
    ignore=("core",),
    words="own\nwords",
    decoy="turn  round",
    place="middle",
    into="premise",
    candidates=("yes", "no, not"),
)


def test_a_link_restores_the_question():
    assert from_query(parse_qs(to_query(QUESTION)), TASK) == QUESTION
    plain = Question({"premise": "a", "hypothesis": "b"}, into="premise")
    assert to_query(plain) == "text.premise=a&text.hypothesis=b"
    assert from_query(parse_qs(to_query(plain)), TASK) == plain


def test_what_a_link_should_not_hold_is_left_out():
    fields = parse_qs("text.premise=a&focus=core&focus=other&ignore=core&ignore=genre&place=top&into=x&__theme=dark")
    found = from_query(fields, TASK)
    assert found == Question({"premise": "a", "hypothesis": ""}, ("core",), ("genre",), into="premise")
    assert from_query({"focus": ["core"]}, TASK) is None
    assert len(from_query({"text.premise": ["a" * 100_000]}, TASK).texts["premise"]) == 20_000


@pytest.mark.parametrize(
    ("place", "text"),
    [("start", "turn round a b c d"), ("middle", "a b turn round c d"), ("end", "a b c d turn round")],
)
def test_a_decoy_stands_in_its_place(place, text):
    asked = Question({**QUESTION.texts}, decoy="turn \n round", place=place, into="premise")
    assert asked.with_decoy() == {"premise": text, "hypothesis": "ü & = ?"}


@pytest.mark.parametrize(
    ("focus", "ignore", "contrary"),
    [
        ((), (), (("genre",), ())),
        (("core",), (), (("genre",), ("core",))),
        (("core",), ("length",), (("length",), ("core",))),
        ((), ("genre",), (("genre",), ())),
        (("genre", "length"), (), (("core",), ("genre", "length"))),
    ],
)
def test_a_contradiction_asks_for_what_was_not_asked_for(focus, ignore, contrary):
    assert contradiction(TASK.features, focus, ignore) == contrary


def test_models_are_asked_with_and_without_the_decoy():
    pair = {"one": Model(), "two": Model(yes="no", no="yes")}
    columns = ask(pair, QUESTION)
    assert [(c.model, c.decoy, c.asked.answer) for c in columns] == [
        ("one", False, "yes"),
        ("one", True, "no"),
        ("two", False, "no"),
        ("two", True, "yes"),
    ]
    texts, options = pair["one"].asked[0]
    assert (texts, options["instruction"], "focus" in options) == (QUESTION.texts, "own\nwords", False)
    assert views.summary(columns) == [
        "one: the decoy turns 2 of 2 answers.",
        "two: the decoy turns 2 of 2 answers.",
        "one and two part in 2 of 2 answers.",
    ]
    explained = attribute(pair, QUESTION)
    assert [(name, a.pieces[0]) for name, a in explained] == [(n, "a b turn round c d") for n in pair]
    assert ask({"one": Model()}, Question({"premise": "a"}, focus=("core",)))[0].asked.focus == "focus(core)"


def test_answers_stand_side_by_side_with_their_probabilities():
    shown = views.answers(ask({"one": Model(), "two": Model()}, Question({"premise": "a", "hypothesis": "b"})))
    rows = re.findall(r"<tr.*?</tr>", shown)
    assert len(rows) == 3
    assert [row.count('class="fx-asked"') for row in rows] == [0, 0, 1]
    assert all(row.count("0.750") == row.count("0.250") == row.count("width:75.0%") == 2 for row in rows[1:])
    own = views.answers(
        [c._replace(asked=Answer("yes", {"yes": 1.0}, "mine", "")) for c in ask({"m": Model()}, QUESTION)]
    )
    assert "own words" in own
    assert own.count("turned") == 2
    many = {f"c{n}": (n + 1) / 55 for n in range(10)}
    columns = [c._replace(all=[Answer("c9", many, "", "none")]) for c in ask({"m": Model()}, Question({"t": "a"}))]
    assert "and 4 others" in views.answers(columns)


def test_an_answer_that_is_not_the_first_models_is_marked():
    pair = {"one": Model(), "two": Model(yes="no", no="yes"), "three": Model()}
    shown = views.answers(ask(pair, Question({"premise": "a", "hypothesis": "b"})))
    cells = re.findall(r'data-column="(\w+)">.*?</strong>(?:<span class="fx-mark">(\w+)</span>)?', shown)
    assert set(cells) == {("one", ""), ("two", "differs"), ("three", "")}


def test_nothing_of_the_data_is_obeyed():
    hostile = Model(yes=HOSTILE, no="no")
    asked = Question({"premise": HOSTILE, "hypothesis": "b"}, words=HOSTILE, decoy=HOSTILE)
    pair = {HOSTILE: hostile}
    shown = views.answers(ask(pair, asked)) + views.notice(HOSTILE)
    shown += "".join(views.heat_map(*found) for found in attribute(pair, asked))
    assert not re.search(r"<img|[${}`\u202e\x1b]", shown)
    assert shown.count("&lt;img") > 5
    tags = "p table caption thead tbody tr th td code q strong span ul li i b figure figcaption"
    assert {*re.findall(r"<(\w+)", shown)} == {*tags.split()}


def test_the_strongest_piece_is_the_darkest():
    shown = views.heat_map("m", Attribution("yes", ("a", " lamp", "?"), (0.5, 2.0, 0.0)))
    assert re.findall(r'--w:([\d.]+)" title="([\d.]+)">([^<]*)', shown) == [
        ("0.250", "0.50", "a"),
        ("1.000", "2.00", " lamp"),
        ("0.000", "0.00", "?"),
    ]
    assert "Most: “lamp” 2.00, “a” 0.50" in shown
    assert "--w:0.000" in views.heat_map("m", Attribution("yes", ("a",), (0.0,)))


def test_two_models_must_be_of_one_task(monkeypatch):
    known = {
        "x/run": SimpleNamespace(slots=("text",), features=("core",), candidates=("a", "b")),
        "y/run": SimpleNamespace(slots=("text",), features=("core", "genre"), candidates=("a", "b")),
        "z/run": SimpleNamespace(slots=("text",), features=("core",), candidates=("a", "b")),
    }
    monkeypatch.setattr(models.fit_jax, "load", lambda folder, checkpoint, trust_code: known[folder], raising=False)
    first = known["x/run"]
    with pytest.raises(InputError, match="y/run: has the features core, genre where the other run has core; "):
        models.load_models(first, "x/run", "y/run", "best", False)
    assert list(models.load_models(first, "x/run", "z/run", "best", False)) == ["x/run", "z/run"]
    assert list(models.load_models(first, "x/run", None, "best", False)) == ["run"]
    assert list(models.load_models(first, "x/run", None, "best", True)) == ["before tuning", "run"]
    with pytest.raises(InputError, match="are one run"):
        models.load_models(first, "x/run", "x/run", "best", False)


def test_wrong_commands_end_before_a_model_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "is_installed", lambda name: True)
    for arguments, said in (
        (["a", "b", "--before"], "--before: takes the place of RUN2"),
        (["a", "--port", "0"], "--port 0: is no port"),
        (["a", "--host", "192.0.2.1"], "--host 192.0.2.1: cannot serve"),
        ([str(tmp_path)], "holds no run"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            command.main(arguments)
    monkeypatch.setattr(command, "is_installed", lambda name: False)
    with pytest.raises(InputError, match="needs Gradio, which is not installed; pip install"):
        command.main(["a"])


def test_another_port_is_taken_where_the_usual_one_is_not_free(monkeypatch):
    import socket

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        monkeypatch.setattr(command, "PORT", taken)
        assert command.free_port("127.0.0.1", None) != taken
        with pytest.raises(InputError, match=f"cannot serve at port {taken}"):
            command.free_port("127.0.0.1", taken)
