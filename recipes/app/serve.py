"""Serves the page of a run until Ctrl-C. Nothing goes to another machine, and nothing of an upload is kept."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["serve"]

_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def serve(path: Path, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page of a run; ends by Ctrl-C or a termination signal.

    Args:
        path: the run folder.
        host: the address that it is reached at; ``127.0.0.1``: from this machine only.
        port: 0: one that is free.
        ready: is called with the page's address.

    Raises:
        RecipeError: Gradio is not installed, host or port cannot be had, or the run cannot be loaded.
    """
    if importlib.util.find_spec("gradio") is None:
        raise RecipeError(
            "the page needs Gradio, which is not installed",
            expected="the extra app",
            given="no gradio",
            fix="pip install 'mi2p-inject[app]'",
        )
    port = _free_port(host, port)
    from mi2p_inject.recipes.api import load_run  # what is heavy comes after what may be wrong

    run = load_run(path)
    with tempfile.TemporaryDirectory(prefix="mi2p-app-", ignore_cleanup_errors=True) as uploads:
        _environment(host, uploads)
        from mi2p_inject.recipes.app.page import build_page, launch_page

        page = build_page(run)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            ready(launch_page(page, host, port))
            threading.Event().wait()
        except KeyboardInterrupt:
            return
        finally:
            page.close(verbose=False)


def _environment(host: str, uploads: str) -> None:
    """What Gradio reads when it is imported: no telemetry, uploads in a folder that goes away, no proxy to itself."""
    os.environ.update(_QUIET, GRADIO_TEMP_DIR=uploads)
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), host.strip("[]"), "localhost", "127.0.0.1"]))


def _free_port(host: str, port: int) -> int:
    """The port, once it is known that it can be had."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        if isinstance(error, socket.gaierror):
            raise RecipeError(
                f"there is no host {host!r}: {error.strerror}",
                expected="an address of this machine",
                given=host,
                fix="--host 127.0.0.1",
            ) from error
        raise RecipeError(
            f"port {port} of {host} cannot be had: {error.strerror}",
            expected="a free port",
            given=str(port),
            fix="another --port, or --port 0 for one that is free",
        ) from error
