"""The page in a real browser: asked, compared, tricked, dark, on a phone, shared, kept, with hostile data."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import fit_jax
from tests.demo_run import SMALLEST

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
)
HOSTILE = "<img src=x onerror='window.hit=1'> ${window.hit=1} {{window}}"
TEXT = "Parcel 7 of red is late"
# Of the colour of a text on what lies behind it, as WCAG defines it; translucent colours do not occur there.
CONTRAST = """(element) => {
  const rgb = (colour) => {
    const dot = document.createElement('canvas').getContext('2d');
    dot.fillStyle = colour;
    dot.fillRect(0, 0, 1, 1);
    return [...dot.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (colour) => rgb(colour).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = element, colour;
  do { colour = getComputedStyle(behind).backgroundColor; behind = behind.parentElement; }
  while (behind && /rgba.*, 0\\)|transparent/.test(colour));
  const [a, b] = [light(getComputedStyle(element).color), light(colour)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a small run whose labels, names and texts are hostile."""
    rows = [
        {
            "text": f"Parcel {n} of {'red' if n % 3 else HOSTILE} is {'late' if n % 2 else 'here'}",
            "colour": "red" if n % 3 else HOSTILE,
            "label": f"bad {HOSTILE}" if n % 2 else "good",
        }
        for n in range(480)
    ]
    description = {
        "name": "parcels",
        "instruction": "Is it good?",
        "input": "{text}",
        "core": f"the mood {HOSTILE}",
        "label": "label",
        "candidates": [f"bad {HOSTILE}", "good"],
        "features": [{"key": "colour", "column": "colour", "name": "the colour"}],
    }
    settings = SMALLEST | {"train.sequence_length": 512, "evaluation.examples": 4}
    folder = tmp_path_factory.mktemp("playground") / "run"
    fit_jax.tune(folder, settings=settings, rows=rows, description=description)
    return folder


@pytest.fixture(scope="module")
def models(run):
    return {"before tuning": fit_jax.load(run, 0), "run": fit_jax.load(run)}


def started(command, folder, path):
    """A server and the address that it tells; it is ended by its id."""
    env = os.environ | {"PYTHONPATH": str(path), "GRADIO_SHARE": "True"}
    return subprocess.Popen([sys.executable, *command], cwd=folder, env=env, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'gradio>=6,<7'")
    server = started(["-m", "fit_jax.playground", str(run), "--before"], tmp_path_factory.mktemp("here"), ROOT)
    try:
        yield re.fullmatch(r"playground: (\S+) .*\n", server.stdout.readline())[1]
    finally:
        server.terminate()
        assert server.wait(60) == 143


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("needs a Chromium browser on PATH")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=program, args=QUIET.split())
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, address):
    """Opens the page in a profile of its own; at the end nothing was fetched from elsewhere and no script failed."""
    pages, asked, failed = [], [], []

    def show(query="", **profile):
        page = (pages[-1] if pages and not profile else browser.new_context(**profile)).new_page()
        pages.append(page.context)
        page.set_default_timeout(120_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(address + query)
        page.wait_for_selector("#answers .fx-answer")
        page.wait_for_selector("#heat .fx-prompt")
        return page

    yield show
    for context in pages:
        context.close()
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {
        urlsplit(address).netloc
    }
    assert failed == []


def asks(page, work):
    """Does something on the page and waits until the answers to it are shown and its link is."""
    before = page.locator("#link textarea, #link input").first.input_value()
    work()
    page.wait_for_function(
        "(before) => (document.querySelector('#link textarea, #link input').value !== before)", arg=before
    )
    page.wait_for_timeout(300)


def says(page, words):
    """Waits until the row of the question says so."""
    page.wait_for_function("(w) => document.querySelector('.fx-asked')?.textContent.includes(w)", arg=words)


def shown(page):
    """The probabilities of the table, row by row."""
    rows = page.locator("#answers tbody tr").all()
    return [[float(p) for p in re.findall(r"\d\.\d{3}", row.text_content())] for row in rows]


def expected(models, text, decoy=None):
    texts = [text] if decoy is None else [text, f"{text} {decoy}"]
    columns = [model.ask_all(t) for model in models.values() for t in texts]
    return [[p for answer in same for p in answer.probabilities.values()] for same in zip(*columns)]


def test_asking_and_comparing(opened, models):
    page = opened()
    asks(page, lambda: page.locator("#text-0 textarea").fill(TEXT))
    assert shown(page) == [pytest.approx(row, abs=6e-4) for row in expected(models, TEXT)]
    assert page.locator("#answers thead th").all_text_contents() == ["Instruction", "before tuning", "run"]
    asks(page, lambda: page.locator("#focus label").nth(1).click())
    says(page, "your question: focus(colour)")
    asks(page, lambda: page.locator("#ignore label").nth(1).click())  # takes it off the other side
    says(page, "your question: ignore(colour)")
    asks(page, lambda: page.locator("#words textarea, #words input").first.fill("Only colours count."))
    says(page, "your question: own wordsOnly colours count.")
    own = [p for m in models.values() for p in m.ask(TEXT, instruction="Only colours count.").probabilities.values()]
    assert shown(page)[0] == pytest.approx(own, abs=6e-4)
    page.wait_for_function("document.querySelector('#heat').textContent.includes('Only colours count.')")
    assert page.locator("#heat .fx-prompt").count() == 2


def test_a_row_of_the_data_and_hostile_text(opened, models):
    page = opened()
    assert page.locator("#data tbody tr").count() == 8
    asks(page, lambda: page.locator("#data tbody tr").nth(3).click())
    asks(page, lambda: page.locator("#text-0 textarea").fill(HOSTILE))
    assert HOSTILE in page.locator("#heat .fx-prompt").first.text_content()
    assert page.evaluate("window.hit") is None
    assert page.locator("#answers img, #heat img, #data img, #title img").count() == 0
    asks(page, lambda: page.locator("#text-0 textarea").fill(""))
    assert "no text for text" in page.locator("#answers [role=alert]").text_content()


def test_decoys(opened, models):
    page = opened(f"?text.text={TEXT}&focus=core")
    asks(page, lambda: page.locator("#contradict").click())
    decoy = page.locator("#decoy textarea, #decoy input").first.input_value()
    assert decoy == models["run"].instruction("colour", "core")
    assert shown(page) == [pytest.approx(row, abs=6e-4) for row in expected(models, TEXT, decoy)]
    titles = ["Instruction", "before tuning", "before tuning + decoy", "run", "run + decoy"]
    assert page.locator("#answers thead th").all_text_contents() == titles
    assert "the decoy turns" in page.locator(".fx-summary").text_content()
    assert decoy in page.locator("#heat .fx-prompt").first.text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_read(opened, scheme):
    page = opened(color_scheme=scheme)
    dark = "document.body.classList.contains('dark')"
    assert page.evaluate(dark) == (scheme == "dark")
    for place in (".fx-answer", ".fx-answers code", ".fx-answers li span", ".fx-summary", ".fx-named", "#title h1"):
        assert page.locator(place).first.evaluate(CONTRAST) >= 4.5, place
    page.locator("#theme").click()
    assert page.evaluate(dark) == (scheme != "dark")


def test_a_phone(opened):
    page = opened(f"?text.text={TEXT}&focus=core&decoy=Look+at+the+colour.", viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for place in ("#text-0 textarea", "#focus", "#contradict", "#answers table", "#heat .fx-prompt", "#link"):
        box = page.locator(place).first.bounding_box()
        assert box["x"] >= 0, place
        assert box["x"] + box["width"] <= 360, place
    assert (
        page.locator("#answers td").first.evaluate("e => getComputedStyle(e, '::before').content") == '"before tuning"'
    )


def test_a_shared_link_restores_the_state(opened):
    page = opened()
    asks(page, lambda: page.locator("#text-0 textarea").fill(f"{TEXT} & 100 % of it?"))
    asks(page, lambda: page.locator("#focus label").nth(0).click())
    asks(page, lambda: page.locator("#decoy textarea, #decoy input").first.fill("Look at the colour."))
    asks(page, lambda: page.locator("#place label").nth(0).click())
    link = page.locator("#link textarea, #link input").first.input_value()
    assert page.url == link
    query = f"?{urlsplit(link).query}"
    other = opened(query, locale="en-US")
    assert other.locator("#text-0 textarea").input_value() == f"{TEXT} & 100 % of it?"
    assert [box.is_checked() for box in other.locator("#focus input").all()] == [True, False]
    assert other.locator("#place input").nth(0).is_checked()
    assert shown(other) == shown(page)
    assert other.locator(".fx-summary").text_content() == page.locator(".fx-summary").text_content()


def test_examples_are_kept_by_the_browser(opened):
    page = opened(f"?text.text={TEXT}&ignore=colour")
    page.locator("#keep").click()
    page.wait_for_selector("#kept tbody tr")
    again = opened()  # in the same profile
    again.wait_for_selector("#kept tbody tr")
    assert TEXT in again.locator("#kept").text_content()
    asks(again, lambda: again.locator("#kept tbody tr").first.click())
    assert again.locator("#text-0 textarea").input_value() == TEXT
    says(again, "your question: ignore(colour)")
    again.locator("#forget").click()
    again.wait_for_function("document.querySelectorAll('#kept tbody tr').length === 0")


def test_a_space_starts_from_its_folder_alone(run, tmp_path, models):
    """Of its own copy of the program, where neither the run nor the checkout is."""
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'gradio>=6,<7'")
    from fit_jax.playground import __main__ as command

    space = tmp_path / "space"
    command.main([str(run), "--before", "--export", str(space)])
    with pytest.raises(fit_jax.InputError, match="is there already"):
        command.main([str(run), "--export", str(space)])
    front = (space / "README.md").read_text().split("---")[1]
    assert "sdk: gradio\n" in front
    assert "app_file: app.py\n" in front
    needed = (space / "requirements.txt").read_text()
    assert "jax" in needed
    assert "pytest" not in needed
    code = (
        "import app, fit_jax, json; print(fit_jax.__file__); "
        f"print(json.dumps([[a.probabilities for a in m.ask_all({TEXT!r})] for m in app.models.values()]))"
    )
    moved = space.rename(tmp_path / "elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=moved, env=os.environ | {"PYTHONPATH": str(moved)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    path, found = done.stdout.strip().splitlines()[-2:]
    assert path == str(moved / "fit_jax" / "__init__.py")
    for mine, theirs in zip(models.values(), json.loads(found)):
        assert [a.probabilities for a in mine.ask_all(TEXT)] == [pytest.approx(p, rel=1e-4) for p in theirs]
