"""Serves the page of a run until Ctrl-C. Nothing goes to another machine, and nothing of an upload is kept."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["serve"]

_POLL, _ENDING = 0.1, 20  # seconds
#: what Gradio reads when it is imported
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
    with (
        _bound(host, port) as listening,
        tempfile.TemporaryDirectory(prefix="mi2p-app-", ignore_cleanup_errors=True) as uploads,
    ):
        os.environ.update(_QUIET, GRADIO_TEMP_DIR=uploads)
        from mi2p_inject.recipes.api import load_run  # what is heavy comes after what may be wrong
        from mi2p_inject.recipes.app.page import build_page, served

        server = served(build_page(load_run(path)), host, listening.getsockname()[1])
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            thread.start()
            while not server.started and thread.is_alive():
                time.sleep(_POLL)
            ready(_address(host, listening))
            while thread.is_alive():  # an interrupted join() would take the thread for ended (Python 3.11)
                time.sleep(_POLL)
        except KeyboardInterrupt:
            for one in (signal.SIGINT, signal.SIGTERM):  # a second one would cut the ending short
                signal.signal(one, signal.SIG_IGN)
            server.should_exit = True
            thread.join(_ENDING)


def _address(host: str, listening: socket.socket) -> str:
    name = "localhost" if host in ("0.0.0.0", "::", "[::]") else host
    return f"http://{f'[{name}]' if ':' in name and '[' not in name else name}:{listening.getsockname()[1]}/"


def _bound(host: str, port: int) -> socket.socket:
    """A socket that is bound to the port: nobody else gets it meanwhile."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except socket.gaierror as error:
        raise RecipeError(
            f"there is no host {host!r}: {error.strerror}",
            expected="an address of this machine",
            given=host,
            fix="--host 127.0.0.1",
        ) from error
    except OSError as error:
        raise RecipeError(
            f"port {port} of {host} cannot be had: {error.strerror}",
            expected="a free port",
            given=str(port),
            fix="another --port, or --port 0 for one that is free",
        ) from error
    return listening
