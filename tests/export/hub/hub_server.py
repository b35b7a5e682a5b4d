"""A hub on this machine: the few routes over which models are listed and fetched."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """A repository with one commit, under `revisions`.

    Args:
        files: contents by name.
        refusal: status and X-Error-Code of every answer about its files.
        listed_refusal: the same of its listing.
        listed_size: what the listing says that each file has, if not its true size.
    """

    files: Mapping[str, bytes]
    revisions: tuple[str, ...] = ("main", COMMIT)
    refusal: tuple[int, str] | None = None
    listed_refusal: tuple[int, str] | None = None
    listed_size: int | None = None


@dataclass
class Hub:
    """A running hub: what it holds, and which files were asked for."""

    endpoint: str
    repos: dict[str, Repo]
    fetched: list[str] = field(default_factory=list)


@contextmanager
def serve(repos: dict[str, Repo]) -> Iterator[Hub]:
    """Serves repositories until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                self._list(match[1], match[2] or "main")
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._file(match[1], match[2], match[3])
            else:
                self._refuse(404, "")

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def _list(self, name: str, revision: str) -> None:
            repo = hub.repos.get(name)
            if repo is None:
                return self._refuse(404, "RepoNotFound")
            if repo.listed_refusal:
                return self._refuse(*repo.listed_refusal)
            if revision not in repo.revisions:
                return self._refuse(404, "RevisionNotFound")
            siblings = [
                {"rfilename": file, "size": repo.listed_size or len(data)}
                for file, data in repo.files.items()
            ]
            answer = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
            return self._answer(200, json.dumps(answer).encode(), {})

        def _file(self, name: str, revision: str, file: str) -> None:
            repo = hub.repos.get(name)
            if repo is None:
                return self._refuse(404, "RepoNotFound")
            if repo.refusal:
                return self._refuse(*repo.refusal)
            if revision not in repo.revisions:
                return self._refuse(404, "RevisionNotFound")
            if file not in repo.files:
                return self._refuse(404, "EntryNotFound")
            if self.command == "GET":
                hub.fetched.append(file)
            data = repo.files[file]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
            return self._answer(200, data, headers)

        def _refuse(self, status: int, code: str) -> None:
            self._answer(status, b"", {"X-Error-Code": code} if code else {})

        def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}", repos)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
