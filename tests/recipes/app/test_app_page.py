"""`mi2p app` in a real browser: one server, the command itself, and one headless Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Forked, run_forked
from PIL import Image

GOLDEN = Path(__file__).parents[2] / "golden" / "run-3"
TEXT = "crimson thing number 3"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH (apt-get install chromium)"
)
SECONDS = 240


class Server:
    """`mi2p app` of the golden run, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.uploads = folder / "tmp"
        self.uploads.mkdir()
        run = shutil.copytree(GOLDEN / "run", folder / "run")
        environment = {**os.environ, "TMPDIR": str(self.uploads), "PYTHONUNBUFFERED": "1"}
        argv = ["-m", "mi2p_inject.recipes", "app", str(run), "--port", "0"]
        self.process = Forked(argv, env=environment, stderr=subprocess.STDOUT)
        said = ""
        for line in self.process.stdout:
            said += line
            if found := re.search(r"Open (http://127\.0\.0\.1:\d+/) in a browser", line):
                self.url = found[1]
                return
        raise RuntimeError(said)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("app"))
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page that was opened, with what it logged and whom it asked."""

    def __init__(self, browser: Any, server: Server, **look: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1200, "height": 900}, **look)
        self.context.set_default_timeout(1000 * SECONDS)
        self.page, self.errors, self.hosts = self.context.new_page(), list[str](), set[str]()
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.goto(server.url)
        self.page.get_by_role("button", name="Answer").wait_for()
        self.server = server

    def give(self, file: Path | None, text: str | None = None) -> None:
        if file is not None:
            self.page.locator("#picture input[type=file]").set_input_files(file)
            self.page.locator("#picture img").wait_for(state="attached")
        if text is not None:
            self.page.get_by_label("Text").fill(text)

    def ask(self) -> None:
        self.page.get_by_role("button", name="Answer").click()

    def alert(self) -> str:
        self.page.get_by_role("alert").first.wait_for()
        return str(self.page.get_by_role("alert").first.inner_text())

    def head(self) -> list[str]:
        self.page.locator("#answer table").first.wait_for()
        return [str(one) for one in self.page.locator("#answer thead").first.locator("th").all_inner_texts()]

    def close(self) -> None:
        self.context.close()
        assert not self.errors
        assert {host for host in self.hosts if host} == {self.server.url.split("/")[2]}


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Visit]:
    visit = Visit(browser, server)
    yield visit
    visit.close()


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_picture_and_a_text_are_answered_and_explained(
    browser: Any, server: Server, tmp_path: Path, scheme: str
) -> None:
    visit = Visit(browser, server, color_scheme=scheme)
    visit.give(GOLDEN / "picture.png", TEXT)
    visit.ask()
    heads = visit.head()
    assert [re.split(r"\s*\n", head)[0] for head in heads] == [
        "class", "picture and text", "without the text", "without the picture",
    ]  # fmt: skip
    expected = json.loads((GOLDEN / "answer.json").read_text())
    assert visit.page.locator("#answer .said").inner_text() == expected["label"]
    for name, share in expected["probabilities"].items():
        line = visit.page.locator("#answer tbody tr", has=visit.page.get_by_role("rowheader", name=name, exact=True))
        assert f"{100 * share:.1f} %" in line.inner_text()
    drawn = visit.page.locator("#explanation img")
    drawn.wait_for()
    assert drawn.get_attribute("alt")
    visit.page.wait_for_function("document.querySelector('#explanation img').naturalWidth > 1000")
    visit.page.screenshot(path=tmp_path / f"{scheme}.png")
    pixels = np.asarray(Image.open(tmp_path / f"{scheme}.png").convert("L"))
    assert (np.median(pixels) > 200) == (scheme == "light")
    visit.close()


@needs_chromium
def test_by_keyboard_without_a_picture_and_cleared(visit: Visit) -> None:
    box = visit.page.get_by_label("Text")
    box.focus()
    visit.page.keyboard.type(TEXT)
    visit.page.keyboard.press("Shift+Enter")
    assert visit.head() == ["class", "text"]
    answer = visit.page.locator("#answer").inner_text()
    assert "No picture was given" in answer
    visit.page.get_by_text("An explanation needs a picture and a text.").wait_for()
    visit.page.get_by_role("button", name="Clear").press("Enter")
    visit.page.get_by_text("Give a picture or a text").wait_for()
    assert box.input_value() == ""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png() -> bytes:
    """A header that promises 100,000 × 100,000 pixels, and none of them."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BAD: dict[str, tuple[str, bytes, str]] = {
    "a text": ("notes.jpg", b"this is no picture\n" * 20, "bad image notes.jpg: no image"),
    "truncated": ("half.png", (GOLDEN / "picture.png").read_bytes()[:60], "bad image half.png"),
    "huge": ("huge.png", huge_png(), "bad image huge.png: too large"),
}


@needs_chromium
def test_a_bad_file_nothing_and_too_long_a_text_are_one_line(visit: Visit, tmp_path: Path) -> None:
    for name, content, words in BAD.values():
        (tmp_path / name).write_bytes(content)
        visit.give(tmp_path / name)
        visit.ask()
        said = visit.alert()
        assert words in said
        assert "give a JPEG" in said
        assert "\n" not in said
        assert not re.search(r"Traceback|/tmp/", visit.page.inner_text("body"))
        visit.page.get_by_role("button", name="Clear").click()
        visit.page.get_by_text("Give a picture or a text").wait_for()
    visit.ask()
    assert visit.alert() == "There is nothing to read: give a picture or a text."
    visit.give(None, "word " * 5000)
    visit.ask()
    visit.page.get_by_text("The text has 24,999 characters: give at most 20,000.").wait_for()


@needs_chromium
def test_only_what_was_uploaded_is_read(visit: Visit) -> None:
    """A forged upload that names a file of the machine is refused; the same call without it is answered."""

    def called(session: str, picture: Any) -> str:
        given = {"data": [picture, ""], "fn_index": 0, "session_hash": session, "event_data": None, "trigger_id": None}
        joined = visit.page.request.post(f"{visit.server.url}gradio_api/queue/join", data=given)
        assert joined.ok
        return str(visit.page.request.get(f"{visit.server.url}gradio_api/queue/data?session_hash={session}").text())

    assert "There is nothing to read" in called("honest", None)
    for number, path in enumerate((str(GOLDEN / "picture.png"), "http://nowhere.invalid/a.png")):
        forged = called(f"forged-{number}", {"path": path, "meta": {"_type": "gradio.FileData"}})
        assert '"success":false' in forged.replace(" ", "")
        assert "Only what was uploaded is read" in forged
    assert not visit.page.request.get(f"{visit.server.url}gradio_api/file={GOLDEN / 'picture.png'}").ok


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = command("app", str(GOLDEN / "run"), "--port", port)
    assert said.returncode == 1
    assert f"port {port} of 127.0.0.1 cannot be had" in said.stderr
    assert "--port 0" in said.stderr
    assert "Traceback" not in said.stderr


def test_without_gradio_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'gradio' else real(n, *a)\n"
        "from mi2p_inject.recipes.cli.main import main; main()"
    )
    said = command("app", str(GOLDEN / "run"), code=code)
    assert said.returncode == 1
    assert "pip install 'mi2p-inject[app]'" in said.stderr
    assert "Traceback" not in said.stderr


@needs_chromium
def test_ctrl_c_ends_it_and_leaves_nothing(server: Server) -> None:
    """The last one: it ends the server."""
    assert len(list(server.uploads.glob("mi2p-app-*"))) == 1
    server.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    server.process.send_signal(signal.SIGINT)  # as who is impatient
    said, _ = server.process.communicate(timeout=SECONDS)
    assert server.process.returncode == 0, said
    assert said.splitlines()[-1] == "Closed."
    assert "Traceback" not in said
    assert not list(server.uploads.glob("mi2p-app-*"))


def command(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    run = ["-c", code] if code else ["-m", "mi2p_inject.recipes"]
    return run_forked([*run, *arguments], timeout=SECONDS)
