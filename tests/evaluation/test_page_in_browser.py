"""Pages in a real browser, under automation: hostile text, light and dark, a phone's width, the keyboard, axe-core.

Needs Chromium with its driver, `pip install selenium` and axe-core (`npm install --no-save axe-core`, or its file in
the environment variable AXE_CORE).
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fit_jax.data.audit import audit_task
from fit_jax.data.inspection_tables import audit_page
from fit_jax.evaluation.report import Before, write_report
from fit_jax.experiment.method_report import write_experiment_report
from fit_jax.focus.prompts import PromptEncoder

from .hostile_run import HOSTILE, LONG, hostile_evaluation, hostile_task

pytestmark = pytest.mark.slow
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run"
)
AXE = Path(os.environ.get("AXE_CORE", Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"))
WIDE, PHONE = (1280, 900), (360, 740)


@pytest.fixture(scope="module")
def driver():
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium, which drives the browser")
    browser, service = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or service is None:
        pytest.skip("needs Chromium and its driver on PATH: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    for flag in FLAGS.split():
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(encoder, task, tmp_path_factory) -> dict[str, Path]:
    """A page of each kind, with hostile and with very long text in every field."""
    folder, found = tmp_path_factory.mktemp("pages"), {}
    for name, text in (("hostile", HOSTILE), ("long", LONG)):
        asked = hostile_task(text)
        evaluation = hostile_evaluation(asked, text)
        speaks = PromptEncoder(encoder.tokenizer, asked.text)
        before = [
            p
            for q, p in zip(evaluation.queries, evaluation.predictions)
            if q.example.uid == evaluation.queries[0].example.uid
        ]
        write_report(folder / name, evaluation, asked, speaks, f"method {text}", 0, Before(before))
        found[name] = folder / name / "index.html"
        cells = {(f"method {text}", 0): evaluation.predictions, ("fit", 0): evaluation.predictions}
        shown = dict.fromkeys((f"method {text}", "fit"), evaluation)
        at = folder / f"{name}-experiment"
        write_experiment_report(at, f"task {text}", cells, shown, speaks, "fit", [f"note {text}"])
        found[f"{name} experiment"] = at / "index.html"
        audit = replace(audit_task(asked), task=f"task {text}", notes=(text,))
        prompts = [{"focus": text, "prompt": text, "target": text}]
        found[f"{name} audit"] = folder / f"{name}-audit.html"
        found[f"{name} audit"].write_text(audit_page(audit, prompts))
    return found


PAGES = [f"{text}{kind}" for text in ("hostile", "long") for kind in ("", " experiment", " audit")]


def opened(driver, page: Path, size: tuple[int, int], scheme: str) -> None:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get_log("performance"), driver.get_log("browser")  # those of the page before
    driver.get(page.as_uri())


@pytest.mark.parametrize("name", PAGES)
def test_nothing_of_the_data_runs_and_nothing_is_asked_of_the_network(driver, pages, name):
    opened(driver, pages[name], WIDE, "light")
    assert driver.execute_script("return document.documentElement.dataset.ran") is None
    requested = [line["message"] for line in driver.get_log("performance") if "requestWillBeSent" in line["message"]]
    assert len(requested) == 1, "the page itself, and nothing else"
    assert driver.get_log("browser") == []  # no error, and nothing that the page's policy had to stop
    if "audit" not in name:
        assert driver.execute_script("return document.querySelectorAll('article').length") == 10


def test_a_script_that_got_into_a_page_would_be_stopped(driver, pages, tmp_path):
    page = tmp_path / "broken.html"
    page.write_text(pages["hostile"].read_text().replace("</main>", f"</main>{HOSTILE}", 1))
    opened(driver, page, WIDE, "light")
    assert driver.execute_script("return document.documentElement.dataset.ran") is None


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_no_page_is_wider_than_its_window(driver, pages, name, size):
    opened(driver, pages[name], size, "light")
    too_wide = """
        const wide = [...document.querySelectorAll("main, main *")].filter(e => !e.closest("svg, caption, .wide"))
          .filter(e => e.getBoundingClientRect().right > innerWidth + 1);
        return [document.documentElement.scrollWidth - innerWidth, wide.map(e => e.outerHTML.slice(0, 80))];
    """
    overflow, wide = driver.execute_script(too_wide)
    assert overflow <= 0
    assert wide == []


def test_labels_of_radars_are_readable_on_a_phone(driver, pages):
    opened(driver, pages["hostile"], PHONE, "light")
    # A picture's user units are points; its labels are set in 10 of them.
    scale = """
        const radar = document.querySelector("figure svg");
        return radar.getBoundingClientRect().width / radar.viewBox.baseVal.width;
    """
    assert 10 * driver.execute_script(scale) >= 9


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_and_radar_follow_the_readers_colours(driver, pages, scheme):
    opened(driver, pages["hostile"], WIDE, scheme)
    bright = """
        const light = color => color.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 765;
        const style = (query, name) => light(getComputedStyle(document.querySelector(query))[name]);
        return [style("body", "backgroundColor"), style("body", "color"), style("figure svg path", "fill"),
                style("figure svg g[id*='text'] use", "fill")];
    """
    back, ink, card, label = driver.execute_script(bright)
    dark = scheme == "dark"
    assert (back < 0.3, ink > 0.7, card < 0.3, label > 0.7) == (dark, dark, dark, dark)


def points_to(word) -> str:
    return word.get_attribute("aria-describedby")


def test_a_word_is_explained_by_pointer_and_keyboard_until_escape(driver, pages):
    from selenium.webdriver import ActionChains, Keys

    opened(driver, pages["hostile"], WIDE, "light")
    word = driver.find_element("css selector", "button.word")
    tip = driver.find_element("id", "tip")
    said = driver.execute_script("return document.getElementById(arguments[0]).textContent", points_to(word))
    assert not tip.is_displayed()
    driver.execute_script("arguments[0].focus()", word)
    assert tip.text == said
    ActionChains(driver).send_keys(Keys.ESCAPE).perform()
    assert not tip.is_displayed()
    ActionChains(driver).move_to_element(word).perform()
    assert tip.text == said


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (WIDE, "dark"), (PHONE, "light")])
def test_axe_finds_nothing_serious(driver, pages, name, size, scheme):
    if not AXE.is_file():
        pytest.skip("needs axe-core: npm install --no-save axe-core, or AXE_CORE=path of axe.min.js")
    opened(driver, pages[name], size, scheme)
    driver.execute_script(AXE.read_text())
    found = driver.execute_async_script("axe.run({resultTypes: ['violations']}).then(arguments[0])")
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found["violations"]] == []
