"""A run of which every text that people see is hostile: task, features, labels, texts, answers, split, notes."""

import re
from html.parser import HTMLParser

from fit_jax.data.splits import Rho, Split
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.evaluation.queries import answered, ask
from fit_jax.focus.example import Example, Spurious, TaskText

RAN = "document.documentElement.dataset.ran=1"
HOSTILE = (
    f"<script>{RAN}</script>\"><img src=http://hostile.invalid/x onerror='{RAN}'>]]>--></svg><!--"
    f"| `code` ``` [link](javascript:{RAN}) ![i](http://hostile.invalid/i) **b** # $\\alpha_1^{{$ "
    "${title} $title {0}"
    "\n\n# heading\n\n- item\x1b[31mred\x1b]0;title\x07\u202eabc\u2066\x00"
)
LONG = "x" * 10_000
FIELDS = ("method", "instruction", "core", "feature", "name", "value", "label", "text", "uid", "split", "written")


def hostile_task(text: str = HOSTILE) -> Task:
    """Twelve examples whose fields are each named and then `text`."""
    words = TaskText(
        name=f"task {text}",
        instruction=f"instruction {text}",
        input_template="{text}",
        cue="Answer:",
        core=f"core {text}",
        spurious={f"feature {text}": f"name {text}"},
    )
    labels = (f"label zero {text}", f"label one {text}")
    examples = [
        Example(
            f"uid {n} {text}",
            {"text": f"text {n} {text}"},
            labels,
            n % 2,
            {f"feature {text}": Spurious(f"value {text}", n // 2 % 2)},
        )
        for n in range(12)
    ]
    rho = {f"feature {text}": {f"value {text}": Rho(None, 0.5, 12)}}
    splits = {name: Split(name, examples, rho) for name in ("train", "validation", f"split {text}")}
    return Task(text=words, splits=splits, notes=(f"note {text}",))


def hostile_evaluation(task: Task, text: str = HOSTILE) -> Evaluation:
    """Answers in hostile words, right at two of three; the others mean no candidate."""
    found = Evaluation([], [])
    for name in list(task.splits)[2:]:
        for number, example in enumerate(task.splits[name].examples):
            for query in ask(task.text, name, example, ("heldout",), 0).queries:
                said = example.candidates[query.label] if number % 3 else f"written {text}"
                found.queries.append(query)
                found.predictions.append(answered(query, [-0.1, -2.5], said))
    return found


class Markup(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of the elements of one name."""
        return [attributes for name, attributes in self.elements if name == tag]


def without_code(markdown: str) -> str:
    """A Markdown text without what it holds as code."""
    text = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<![\\`])(`+)(?!`).+?(?<!`)\1(?!`)", "", text)
