"""Writes docs/app.png and docs/app-dark.png: the page of `mi2p app` with a sample of the test split.

mi2p demo --out runs/demo
python docs/make_app_picture.py runs/demo/experiments/me-vision/seed-0
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from mi2p_inject.recipes.api import load_run
from mi2p_inject.recipes.data import open_image
from mi2p_inject.recipes.training.train import load_samples

DOCS = Path(__file__).parent
TEXT = "fire engine"


def ask(page: Page, url: str, picture: Path, text: str) -> None:
    page.goto(url)
    page.locator("#picture input[type=file]").set_input_files(picture)
    page.get_by_label("Text").fill(text)
    page.get_by_role("button", name="Answer").click()
    page.wait_for_function("document.querySelector('#explanation img')?.naturalWidth > 1000")
    page.wait_for_timeout(1000)  # until what moves stands still


def main(run: str, text: str = TEXT) -> None:
    samples = load_samples(load_run(run).saved.config).splits["test"]
    row = next(row for row in samples if row["text"] == text)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    command = [sys.executable, "-m", "mi2p_inject.recipes", "app", run, "--port", "0"]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        picture = Path(folder) / "picture.png"
        opened = open_image(row["image"], on_bad="error")
        assert opened is not None
        opened.save(picture)
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            url = next(found[1] for line in server.stdout or () if (found := re.search(r"Open (\S+) in", line)))
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for scheme, name in (("light", "app.png"), ("dark", "app-dark.png")):
                page = browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 800})
                ask(page, url, picture, text)
                page.screenshot(path=DOCS / name, full_page=True)
            browser.close()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
