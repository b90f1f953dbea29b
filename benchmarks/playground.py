"""Seconds until the playground answers in a browser: the first time after the command, and after a keystroke.

    python -m benchmarks.playground RUN [--rounds 3]

Each start is a fresh process with a page of its own in a headless Chromium that is open already; `cold` finds no
program compiled before, `warm` those of the start before it. Needs Gradio, Playwright and a Chromium on the PATH.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from statistics import median
from typing import Any

from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]  (an extra)

QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
HEAT = "#heat .fx-prompt"
TEXTS = ("The kettle came late.", "A fine lamp, and it works well.", "Marlin made the radio, which is awful.")

# Both by the page's own clock: a driver of a browser takes a second to notice on a busy machine.
FIRST = """new MutationObserver((_, observer) => {
  if (!document.querySelector('#answers .fx-answer')) return;
  window.answered = Date.now();
  observer.disconnect();
}).observe(document, {subtree: true, childList: true})"""
CHANGE = """(text) => new Promise((answered) => {
  const field = document.querySelector('#text-0 textarea'), start = performance.now();
  document.querySelector('#answers table').dataset.old = 1;  // which the next answers do not have
  const found = new MutationObserver(() => {
    if (!document.querySelector('#answers table:not([data-old])')) return;
    found.disconnect();
    answered(performance.now() - start);
  });
  found.observe(document.querySelector('#answers'), {subtree: true, childList: true, attributes: true});
  field.value = text;
  field.dispatchEvent(new Event('input', {bubbles: true}));
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as play, tempfile.TemporaryDirectory() as scratch:
        browser = play.chromium.launch(executable_path=program, args=list(QUIET))
        kinds = {"cold": [f"{scratch}/{n}" for n in range(given.rounds)], "warm": [f"{scratch}/0"] * given.rounds}
        for kind, caches in kinds.items():
            rounds = [one_start(given.run, cache, browser) for cache in caches]
            for what in rounds[0]:
                values = [found[what] for found in rounds]
                print(f"{kind}: {what}: {median(values):.2f} s ({', '.join(f'{v:.2f}' for v in values)})", flush=True)


def one_start(run: str, cache: str, browser: Any) -> dict[str, float]:
    """What one start takes, from the command on."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    page = browser.new_page()
    page.add_init_script(FIRST)
    start, started = time.perf_counter(), time.time()
    command = [sys.executable, "-m", "fit_jax.playground", run, "--before"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.fullmatch(r"playground: (\S+) .*\n", server.stdout.readline())
            assert address is not None
            found = {"address printed": time.perf_counter() - start}
            page.goto(address[1])
            page.wait_for_selector(HEAT, timeout=120_000)
            found["first answer"] = page.evaluate("answered") / 1000 - started
            found["heat map"] = time.perf_counter() - start
            found["processor time so far"] = processor_seconds(server.pid)
            found["next answer, slowest"] = max(next_answer(page, text) for text in TEXTS)
            page.close()
            return found
        finally:
            server.terminate()


def next_answer(page: Any, text: str) -> float:
    """From a changed text to other answers on the page."""
    page.wait_for_timeout(1000)
    return page.evaluate(CHANGE, text) / 1000


def processor_seconds(process: int) -> float:
    """Seconds that a process has kept processors busy."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
