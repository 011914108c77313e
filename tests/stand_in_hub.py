"""A hub of data sets and models on loopback: what `datasets` and `huggingface_hub` ask of the real one, and no more.

Repositories are files by branch and path. The stand-in answers for a branch and its commit, lists folders, describes
and serves files; anything else is 404 with the hub's own code, as for what does not exist there.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

Files = Mapping[str, bytes]
"""Contents by path."""
Repositories = Mapping[str, Mapping[str, Files]]
"""Files by name of the repository and branch."""


class _Missing(Exception):
    """Something that is not there, by the hub's code for it."""


def _hash(text: str | bytes) -> str:
    return hashlib.sha1(text if isinstance(text, bytes) else text.encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    repositories: Repositories

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def _answer(self, sent: str = "") -> None:
        status, headers = 200, {}
        try:
            content, headers = self._content(sent)
        except _Missing as missing:
            status, content, headers = 404, b"{}", {"X-Error-Code": str(missing)}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _content(self, sent: str) -> tuple[bytes, dict[str, str]]:
        address = urlsplit(self.path)
        path, asked = unquote(address.path).strip("/"), parse_qs(address.query)
        repository = next((name for name in self.repositories if _is_of(path, name)), None)
        if repository is None:
            raise _Missing("RepoNotFound")
        action, _, rest = path.split(repository, 1)[1].strip("/").partition("/")
        commit, files, inside = self._branch(repository, rest or "main")
        if action in ("", "revision"):
            siblings = [{"rfilename": name} for name in files]
            return json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode(), {}
        if action == "resolve":
            if inside not in files:
                raise _Missing("EntryNotFound")
            return files[inside], {"ETag": f'"{_hash(files[inside])}"', "X-Repo-Commit": commit}
        if action == "paths-info":
            wanted = json.loads(sent)["paths"] if sent.startswith("{") else parse_qs(sent)["paths"]
            return json.dumps([entry for entry in _entries(files) if entry["path"] in wanted]).encode(), {}
        begin, deep = f"{inside}/" if inside else "", asked.get("recursive") == ["true"]
        listed = [entry for entry in _entries(files) if str(entry["path"]).startswith(begin)]
        if not listed:
            raise _Missing("EntryNotFound")
        shallow = [entry for entry in listed if "/" not in str(entry["path"]).removeprefix(begin)]
        return json.dumps(listed if deep else shallow).encode(), {}

    def _branch(self, repository: str, rest: str) -> tuple[str, Files, str]:
        """Commit and files of the branch that a path begins with, by its name or commit, and what follows it."""
        for branch, files in self.repositories[repository].items():
            commit = _hash(f"{repository}@{branch}")
            for name in (branch, commit):
                if rest == name or rest.startswith(f"{name}/"):
                    return commit, files, rest.removeprefix(name).strip("/")
        raise _Missing("RevisionNotFound")


def _is_of(path: str, repository: str) -> bool:
    """Whether a path is that of a data set or model."""
    return f"datasets/{repository}" in path or f"{path}/".removeprefix("api/models/").startswith(f"{repository}/")


def _entries(files: Files) -> list[dict[str, object]]:
    """Files and the folders above them."""
    entries: dict[str, dict[str, object]] = {}
    for name, content in files.items():
        above = name.split("/")[:-1]
        for depth in range(1, len(above) + 1):
            folder = "/".join(above[:depth])
            entries[folder] = {"type": "directory", "path": folder, "oid": _hash(folder), "size": 0}
        entries[name] = {"type": "file", "path": name, "oid": _hash(content), "size": len(content)}
    return list(entries.values())


@contextmanager
def stand_in_hub(repositories: Repositories) -> Iterator[str]:
    """Serve repositories; gives the address."""
    handler = type("Handler", (_Handler,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
