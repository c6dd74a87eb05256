"""What mkdocs does to the pages: links that leave docs/ lead to the repository; the code of tutorials is run.

Each ```python block of a page below tutorials/ is executed, in order, in one namespace and an empty folder; what it
prints stands below it, and so does a picture that it saves and names in a comment ``# shows picture.png``. A block that
raises ends the build.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = "https://github.com/mi2p-inject/mi2p_inject/blob/main/"
_BLOCK = re.compile(r"```python\n(.*?)```\n?", re.DOTALL)
_OUTSIDE = re.compile(r"\]\(\.\./([^)]+)\)")
_SHOWS = re.compile(r"# shows (\S+)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Called by mkdocs with the source of each page."""
    path = page.file.src_uri
    if path.startswith("tutorials/"):
        return run_blocks(markdown, path)
    return _OUTSIDE.sub(rf"]({REPOSITORY}\1)", markdown)


def run_blocks(markdown: str, name: str) -> str:
    """The page with what its blocks print and show.

    Args:
        markdown: the source.
        name: of the page, for tracebacks.
    """
    space: dict[str, Any] = {"__name__": "tutorial"}

    def run(found: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(found[1], name, "exec"), space)
        output = printed.getvalue().strip()
        parts = [found[0].rstrip("\n"), *([f"```text\n{output}\n```"] if output else [])]
        for picture in _SHOWS.findall(found[1]):
            data = base64.b64encode(Path(picture).read_bytes()).decode()
            parts.append(f'<img alt="{picture}" src="data:image/png;base64,{data}">')
        return "\n\n".join(parts) + "\n"

    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return _BLOCK.sub(run, markdown)
        finally:
            os.chdir(before)
