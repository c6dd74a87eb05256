"""A Hub in this process: the few endpoints that huggingface_hub asks for, over HTTP, with its answers to mistakes."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

READER, WRITER = "hf_reader", "hf_writer"
Files = dict[str, bytes]


class SmallHub(ThreadingHTTPServer):
    """Repositories in memory: id -> branch -> path -> bytes. Private ones begin with ``secret/``."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, Files]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, repository: str, files: Files, branch: str = "main") -> None:
        self.repositories.setdefault(repository, {"main": {}})[branch] = dict(files)


@contextmanager
def small_hub() -> Iterator[SmallHub]:
    hub = SmallHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def at_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """What HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE=0 set when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 60)
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def commit_of(files: Files) -> str:
    """The commit that holds these files: 40 hexadecimal digits."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: SmallHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._read()

    def do_HEAD(self) -> None:
        self._read()

    def _read(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        if path.startswith("/api/models/"):
            listed = "/tree/" in path
            repository, _, revision = path.removeprefix("/api/models/").partition("/tree/" if listed else "/revision/")
            files = self._found(repository, revision or "main")
            if files is not None and listed:
                sizes = {name: len(content) for name, content in files.items()}
                self._json(
                    200, [{"type": "file", "path": name, "size": one, "oid": "0"} for name, one in sizes.items()]
                )
            elif files is not None:
                names = [{"rfilename": name} for name in sorted(files)]
                self._json(200, {"id": repository, "sha": commit_of(files), "siblings": names, "private": False})
            return
        repository, _, rest = path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        files = self._found(repository, revision)
        if files is None:
            return
        if name not in files:
            self._fail(404, "EntryNotFound", "Entry not found")
            return
        content = files[name]
        headers = {"X-Repo-Commit": commit_of(files), "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        self._send(200, content, "application/octet-stream", headers)

    def _found(self, repository: str, revision: str) -> Files | None:
        branches = self.server.repositories.get(repository)
        if branches is None or (repository.startswith("secret/") and self._token() is None):
            self._fail(401, "RepoNotFound", "Repository not found")
            return None
        for branch, files in branches.items():
            if revision in (branch, commit_of(files)):
                return files
        self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            self._json(200, {"errors": [], "warnings": []})
        elif self._token() is None:
            self._fail(401, None, "Invalid username or password.")
        elif self._token() != WRITER:
            self._fail(403, None, "You don't have the rights to write here")
        elif path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}" if given.get("organization") else given["name"]
            if name in self.server.repositories:
                self._json(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"})
            else:
                self.server.put(name, {})
                self._json(200, {"url": f"{self.server.url}/{name}", "id": name})
        else:
            self._write(path.removeprefix("/api/models/"), body)

    def _write(self, path: str, body: bytes) -> None:
        repository, action, branch = path.rsplit("/", 2)
        branches = self.server.repositories[repository]
        if action == "branch":
            branches.setdefault(branch, dict(branches["main"]))
            self._json(200, {})
        elif action == "preupload":
            files = [{**one, "uploadMode": "regular", "shouldIgnore": False} for one in json.loads(body)["files"]]
            self._json(200, {"files": files})
        else:
            files = dict(branches[branch])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            branches[branch] = files
            commit = commit_of(files)
            url = f"{self.server.url}/{repository}/commit/{commit}"
            self._json(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def _token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def _fail(self, status: int, code: str | None, message: str) -> None:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._send(status, json.dumps({"error": message}).encode(), "application/json", headers)

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", {})

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
