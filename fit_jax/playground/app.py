"""The page, on Gradio: what one sees and what each control does. Nothing on it is fetched from, or sent to, others."""

import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import parse_qs

# Gradio reads these when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr  # pyright: ignore[reportMissingImports]  (an extra)
from gradio.themes import Base  # pyright: ignore[reportMissingImports]

from fit_jax.api import FocusModel
from fit_jax.errors import InputError
from fit_jax.playground import views
from fit_jax.playground.question import PLACES, Question, ask, attribute, contradiction, from_query, to_query

_P = ParamSpec("_P")
_R = TypeVar("_R")
# An application by ASGI, and what it is called with.
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]

# Rows of the run's own data that are offered: those first whose features point to different answers.
_OFFERED, _LOOKED_AT = 8, 25
_KEPT = 50

# The address bar holds the link; what the theme of the page is, is the reader's own.
_SHARE = """(query) => {
  const link = new URL(window.location.href);
  const theme = link.searchParams.get('__theme');
  link.search = query + (theme ? '&__theme=' + theme : '');
  window.history.replaceState(null, '', link);
  return link.href;
}"""
_OTHER_THEME = "() => { document.body.classList.toggle('dark'); }"
# A feature is focused on or ignored, never both.
_WITHOUT = "(chosen, other) => [other.filter((name) => !chosen.includes(name))]"


def page(models: Mapping[str, FocusModel]) -> gr.Blocks:
    """The page that asks these models, which take the same texts and features.

    Args:
        models: One or two, each with what it is called.
    """
    model = next(iter(models.values()))
    rows = offered_rows(model)
    start = _question_of_row(model, rows[0]) if rows else Question({slot: "" for slot in model.slots})
    with gr.Blocks(title="fit_jax playground", analytics_enabled=False, fill_width=True) as blocks:
        with gr.Row():
            gr.HTML(f"<h1>{views.safe(' and '.join(models))}</h1>", elem_id="title")
            theme = gr.Button("Light or dark", size="sm", scale=0, min_width=120, elem_id="theme")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                controls = _Controls(model, start)
            with gr.Column(scale=4, min_width=320):
                # The first answers come with the page: a browser takes seconds until it can ask.
                answers = gr.HTML(_answers(models, start), elem_id="answers")
                with gr.Accordion("What the answer rests on", open=True):
                    heat = gr.HTML(elem_id="heat")
        with gr.Accordion(f"Rows of the data ({_split(model)})", open=True):
            samples = [_sample(model, row) for row in rows]
            data = _table([*model.slots, *model.features], samples, "data")
        with gr.Accordion("Kept examples", open=True):
            with gr.Row():
                keep = gr.Button("Keep this one", size="sm", elem_id="keep")
                forget = gr.Button("Forget all", size="sm", elem_id="forget")
            kept_table = _table(["text", "instruction", "answer"], [], "kept")
        link = gr.Textbox(label="Link to this state", interactive=False, buttons=["copy"], elem_id="link")
        query = gr.Textbox(visible="hidden")
        # Kept in the browser, one list for each kind of task; it is no secret from the reader whose browser it is.
        kinds = "/".join((*model.slots, *model.features))
        kept = gr.BrowserState([], storage_key=f"fit_jax/{kinds}", secret="kept in the clear")

        def show(*values: Any) -> tuple[str, str]:
            question = controls.question(values)
            return _answers(models, question), to_query(question)

        def explain(*values: Any) -> str:
            if not any(values[: len(model.slots)]):
                return ""
            found = _or_notice(
                lambda: "".join(views.heat_map(*a) for a in attribute(models, controls.question(values)))
            )
            return "" if "fx-notice" in found else found  # it is shown above

        def restore(request: gr.Request) -> list[str | list[str]]:
            return controls.values(from_query(parse_qs(str(request.query_params)), model) or start)

        def choose_row(number: int) -> list[str | list[str]]:
            return controls.values(_question_of_row(model, rows[number]))

        def choose_kept(entries: object, number: int) -> list[str | list[str]]:
            found = from_query(parse_qs(_entries(entries)[number][0]), model)
            return controls.values(found or start)

        def keep_one(entries: object, *values: Any) -> tuple[list[list[str]], gr.Dataset]:
            question, before = controls.question(values), _entries(entries)
            words = question.words or model.instruction(question.focus, question.ignore)
            texts = question.with_decoy() if question.decoy.strip() else question.texts
            said = [f"{name}: {m.ask(texts, **question.options()).answer}" for name, m in models.items()]
            entry = [to_query(question), " / ".join(texts.values()), words, ", ".join(said)]
            entries = [entry, *(e for e in before if e[0] != entry[0])][:_KEPT]
            return entries, gr.Dataset(samples=[e[1:] for e in entries])

        hidden: Any = {"api_visibility": "private"}
        quiet: Any = {**hidden, "show_progress": "hidden"}
        asked = gr.on(
            [c.change for c in controls.all], show, controls.all, [answers, query],
            trigger_mode="always_last", show_progress="minimal", show_progress_on=[answers], queue=False, **hidden,
        )  # fmt: skip
        loaded = blocks.load(restore, None, controls.all, **quiet).then(
            show, controls.all, [answers, query], **quiet
        )  # fmt: skip
        for event in (asked, loaded):
            event.then(None, [query], [link], js=_SHARE, **quiet)
            event.then(explain, controls.all, [heat], trigger_mode="always_last", **quiet)
        blocks.load(lambda e: gr.Dataset(samples=[x[1:] for x in _entries(e)]), [kept], [kept_table], **quiet)
        data.click(choose_row, [data], controls.all, **quiet)
        kept_table.click(choose_kept, [kept, kept_table], controls.all, **quiet)
        keep.click(_noticed(keep_one), [kept, *controls.all], [kept, kept_table], **quiet)
        forget.click(lambda: ([], gr.Dataset(samples=[])), None, [kept, kept_table], **quiet)
        theme.click(None, None, None, js=_OTHER_THEME, **hidden)
    return blocks


class _Controls:
    """The controls that make up a question, in a fixed order.

    Attributes:
        all: The components.
    """

    def __init__(self, model: FocusModel, start: Question) -> None:
        """Puts the controls on the page that is being made."""
        self._model = model
        choices = [(model.names[feature], feature) for feature in model.features]
        texts = [
            gr.Textbox(start.texts[slot], label=slot, lines=3, max_lines=12, elem_id=f"text-{number}")
            for number, slot in enumerate(model.slots)
        ]
        with gr.Group():
            focus = gr.CheckboxGroup(choices, label="Focus on", elem_id="focus")
            ignore = gr.CheckboxGroup(choices, label="Ignore", elem_id="ignore")
            words = gr.Textbox(
                label="Or in your own words", placeholder="in place of the choices above", elem_id="words"
            )
        with gr.Group():
            decoy = gr.Textbox(
                label="Decoy", placeholder="a sentence in the text that poses as an instruction", elem_id="decoy"
            )
            with gr.Row():
                place = gr.Radio(list(PLACES), value="end", label="Where in the text", elem_id="place")
                several = len(model.slots) > 1
                into = gr.Radio(list(model.slots), value=model.slots[0], label="Which text", visible=several)
            contradict = gr.Button("Contradict the instruction", size="sm", elem_id="contradict")
        own = not model.candidates
        candidates = gr.Textbox(label="Answers to choose from, one a line", lines=3, visible=own, elem_id="candidates")
        self.all = [*texts, focus, ignore, words, decoy, place, into, candidates]

        def contrary(focus: Sequence[str], ignore: Sequence[str]) -> str:
            return model.instruction(*contradiction(model.features, focus, ignore))

        quiet: Any = {"api_visibility": "private", "show_progress": "hidden"}
        focus.input(None, [focus, ignore], [ignore], js=_WITHOUT, **quiet)
        ignore.input(None, [ignore, focus], [focus], js=_WITHOUT, **quiet)
        contradict.click(contrary, [focus, ignore], [decoy], **quiet)

    def question(self, values: Sequence[Any]) -> Question:
        """The question that the controls' values ask."""
        slots = self._model.slots
        focus, ignore, words, decoy, place, into, candidates = values[len(slots) :]
        return Question(
            texts={slot: text or "" for slot, text in zip(slots, values)},
            focus=tuple(focus or ()),
            ignore=tuple(ignore or ()),
            words=words or "",
            decoy=decoy or "",
            place=place or "end",
            into=into or slots[0],
            candidates=tuple(line.strip() for line in (candidates or "").splitlines() if line.strip()),
        )

    def values(self, question: Question) -> list[str | list[str]]:
        """The controls' values that ask the question."""
        q = question
        into = q.into or self._model.slots[0]
        chosen = [list(q.focus), list(q.ignore), q.words, q.decoy, q.place, into, "\n".join(q.candidates)]
        return [*q.texts.values(), *chosen]


def offered_rows(model: FocusModel) -> list[Any]:
    """Rows of the first test split, those first whose features point to different answers."""
    found = model.examples(_split(model), _LOOKED_AT)
    return sorted(found, key=lambda row: len(set(row.answers.values())) == 1)[:_OFFERED]


def _split(model: FocusModel) -> str:
    """The first split that is made to test on."""
    return next((name for name in model.splits if name != "validation"), "validation")


def serve(blocks: gr.Blocks, host: str, port: int) -> str:
    """Starts to serve the page, in the background; returns its address."""
    _, address, _ = blocks.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, inline=False,
        app_kwargs={"middleware": _middleware(host)}, **look(),
    )  # fmt: skip
    return address


def look() -> dict[str, Any]:
    """What `launch` takes besides an address: the page's looks, and that nothing of it leaves this machine."""
    theme = Base(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    off = dict.fromkeys(("share", "ssr_mode", "enable_monitoring", "mcp_server", "pwa", "run_history"), False)
    return {"theme": theme, "css_paths": [Path(__file__).with_name("style.css")], "footer_links": ["settings"], **off}


def _middleware(host: str) -> list[Any]:
    """Refuses what a page of another site would ask in this one's name, and has the browser ask nobody but us."""
    from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]  (Gradio's)
    from starlette.middleware.trustedhost import TrustedHostMiddleware  # pyright: ignore[reportMissingImports]

    found = [Middleware(_ContentPolicy)]
    if host in ("127.0.0.1", "localhost"):
        found.append(Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]))
    return found


class _ContentPolicy:
    """Adds a policy to each answer under which a browser loads nothing from elsewhere."""

    _POLICY = (
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; object-src 'none'; frame-ancestors 'none'; "
        b"form-action 'self'; base-uri 'self'"
    )

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        async def with_policy(message: _Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", self._POLICY)]
            await send(message)

        await self._app(scope, receive, with_policy)


def _table(headers: Sequence[str], samples: list[list[str]], name: str) -> gr.Dataset:
    cells = [gr.Textbox(visible=False) for _ in headers]
    return gr.Dataset(
        components=cells, headers=list(headers), samples=samples, type="index", layout="table",
        show_label=False, elem_id=name,
    )  # fmt: skip


def _sample(model: FocusModel, row: Any) -> list[str]:
    """A row of the data: its texts, and what each feature points to."""
    values = {"core": "", **{name: f"{value}: " for name, value in row.values.items()}}
    return [*(row.text[slot] for slot in model.slots), *(values[f] + row.answers[f] for f in model.features)]


def _question_of_row(model: FocusModel, row: Any) -> Question:
    return Question(dict(row.text), candidates=() if model.candidates else row.candidates)


def _answers(models: Mapping[str, FocusModel], question: Question) -> str:
    return _or_notice(lambda: views.answers(ask(models, question)))


def _or_notice(work: Callable[[], str]) -> str:
    try:
        return work()
    except InputError as error:
        return views.notice(str(error))


def _noticed(work: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, whose `InputError` the page shows for a moment."""

    def called(*values: _P.args, **named: _P.kwargs) -> _R:
        try:
            return work(*values, **named)
        except InputError as error:
            raise gr.Error(views.safe(str(error))) from error

    return called


def _entries(kept: object) -> list[list[str]]:
    """What the browser has kept, as far as it is of the form that it was given."""
    rows = kept if isinstance(kept, list) else []
    return [row for row in rows if isinstance(row, list) and len(row) == 4 and all(isinstance(t, str) for t in row)]
