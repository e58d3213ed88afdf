"""A small server shaped like the Hub, for the real client to talk to over HTTP, with failures on demand.

It knows repositories, commits, the tree, the LFS batch protocol and `resolve`, as far as huggingface_hub uses them,
and serves large files from another host name, as the Hub does. Tokens: "hf_write" may write, "hf_read" may not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

LARGE = (".safetensors", ".parquet", ".npz")


@dataclass
class Repo:
    """commits: id -> path -> (content, whether it is a large file). The last one is `main`.

    gated: everyone may look, nobody may fetch.   answers_as: the commit that it claims to answer from.
    claims: path -> the size that the listing gives in place of the true one.
    """

    commits: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=dict)
    gated: bool = False
    answers_as: str | None = None
    claims: dict[str, int] = field(default_factory=dict)

    def commit(self, files: dict[str, tuple[bytes, bool]]) -> str:
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[name] = files
        return name

    @property
    def head(self) -> str:
        return list(self.commits)[-1]


@dataclass
class Failure:
    """Answer `times` requests that match by a status, or by cutting the connection half way (status None)."""

    method: str
    path: str
    times: int
    status: int | None
    headers: dict[str, str]
    after: bool


@dataclass
class Hub:
    """The server's state.

    requests: (method, path, token) of everything that was asked.   meanwhile: what someone else does to a repository
    just before the next commit.
    """

    url: str
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    meanwhile: Callable[[Repo], object] | None = None

    def fail(
        self, method: str, path: str, times: int = 1, status: int | None = None, after: bool = False, **headers: str
    ) -> None:
        """path: a regular expression. after: do what was asked, then lose the answer. headers: `retry_after="3"`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.failures.append(Failure(method, path, times, status, named, after))

    def asked(self, method: str, path: str = "") -> list[str]:
        """The paths that were asked with this method and match."""
        return [p for m, p, _ in self.requests if m == method and re.search(path, p)]

    def repo(self, name: str, kind: str = "models") -> Repo:
        return self.repos[kind, name]

    def files(self, name: str, kind: str = "models") -> dict[str, bytes]:
        """What `main` holds, but the file every repository starts with."""
        repo = self.repo(name, kind)
        return {path: data for path, (data, _) in repo.commits[repo.head].items() if path != ".gitattributes"}


@contextmanager
def serving() -> Iterator[Hub]:
    """A running server on the loopback interface; its state is what the block gets."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for the client's acknowledgement

    def log_message(self, *_: object) -> None:
        """Tests read `Hub.requests` instead."""

    def handle_any(self) -> None:
        self.hub: Hub = self.server.hub
        self.token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.token))
        found = (f for f in self.hub.failures if f.times and f.method == self.command and re.search(f.path, path))
        self.failure = next(found, None)
        length = int(self.headers.get("content-length") or 0)
        if self.failure is not None:
            self.failure.times -= 1
            if self.failure.status is not None:
                self.rfile.read(length)
                return self.answer({"error": "injected"}, self.failure.status, self.failure.headers)
            if self.command != "GET" and not self.failure.after:
                self.rfile.read(length // 2)
                return self.cut()
        self.body = self.rfile.read(length)
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split():
                return action(self, **match.groupdict())
        return self.answer({"error": f"no route for {self.command} {path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 (the base class's names)

    def cut(self) -> None:
        """Break the connection off."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        if self.failure is not None and self.failure.after:
            return self.cut()
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            lost = self.failure is not None and self.failure.status is None
            self.wfile.write(data[: len(data) // 2] if lost else data)
            if lost:
                self.cut()
        return None

    def may_write(self) -> bool:
        """Whether the token may write; answers 401 or 403 where it may not."""
        if self.token == "hf_write":
            return True
        status, reason = (403, "You don't have the rights") if self.token else (401, "Invalid username or password.")
        self.answer({"error": reason}, status, {"x-error-message": reason})
        return False

    def find(self, kind: str, repo: str) -> Repo | None:
        found = self.hub.repos.get((kind, repo))
        if found is None:
            status = 404 if self.token else 401
            self.answer({"error": "Repository not found"}, status, {"x-error-code": "RepoNotFound"})
        return found

    def create(self) -> None:
        if not self.may_write():
            return None
        wanted = json.loads(self.body)
        kind, name = wanted.get("type", "model") + "s", f"{wanted['organization']}/{wanted['name']}"
        url = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
        if (kind, name) in self.hub.repos:
            return self.answer({"url": url, "error": "You already created this repo"}, 409)
        if kind == "spaces" and wanted.get("sdk") != "gradio":
            return self.answer({"error": "sdk is missing"}, 400)
        self.hub.repos[kind, name] = Repo()
        self.hub.repos[kind, name].commit({".gitattributes": (b"*.safetensors filter=lfs\n", False)})
        return self.answer({"url": url})

    def at(self, found: Repo, revision: str) -> str | None:
        """The commit that a revision means; answers 404 where there is none."""
        commit = found.head if revision == "main" else revision
        if commit in found.commits:
            return commit
        return self.answer({"error": "Invalid rev id"}, 404, {"x-error-code": "RevisionNotFound"})

    def info(self, kind: str, repo: str, revision: str = "main") -> None:
        if (found := self.find(kind, repo)) and (commit := self.at(found, revision)):
            commit = found.answers_as or commit
            self.answer({"id": repo, "sha": commit, "private": False, "tags": [], "downloads": 0, "likes": 0})

    def tree(self, kind: str, repo: str, revision: str) -> None:
        if (found := self.find(kind, repo)) and (commit := self.at(found, revision)):
            rows = {}
            for path, (data, large) in found.commits[commit].items():
                folder = path.partition("/")[0]
                if folder != path and "recursive=true" not in self.path.lower():
                    rows[folder] = {"type": "directory", "path": folder, "oid": "0" * 40}
                    continue
                size = found.claims.get(path, len(data))
                rows[path] = {"type": "file", "path": path, "size": size, "oid": _git_hash(data)}
                if large:
                    pointer = hashlib.sha256(data).hexdigest()
                    rows[path] |= {"oid": "0" * 40, "lfs": {"oid": pointer, "size": size, "pointerSize": 134}}
            self.answer(list(rows.values()))

    def validate(self) -> None:
        self.answer({"errors": [], "warnings": []})

    def preupload(self, kind: str, repo: str, revision: str) -> None:
        if self.may_write() and self.find(kind, repo):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self.body)["files"]
            ]
            self.answer({"files": files})

    def batch(self, repo: str) -> None:
        if not self.may_write():
            return
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            if wanted["oid"] not in self.hub.large:
                wanted |= {"actions": {"upload": {"href": f"{self.hub.url}/storage/{wanted['oid']}"}}}
            objects.append(wanted)
        self.answer({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.answer({"error": "the content has another hash"}, 400)
        self.hub.large[oid] = self.body
        return self.answer({})

    def serve(self, oid: str) -> None:
        self.answer(self.hub.large[oid], headers={"etag": f'"{oid}"'})

    def commit(self, kind: str, repo: str, revision: str) -> None:
        found = self.find(kind, repo) if self.may_write() else None
        if found is None:
            return None
        meanwhile, self.hub.meanwhile = self.hub.meanwhile, None
        if meanwhile is not None:
            meanwhile(found)
        lines = [json.loads(line) for line in self.body.splitlines()]
        if lines[0]["value"].get("parentCommit", found.head) != found.head:
            return self.answer({"error": "A commit has happened since."}, 412)
        files = dict(found.commits[found.head])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = (base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                files[value["path"]] = (self.hub.large[value["oid"]], True)
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        name = found.commit(files)
        return self.answer({"commitUrl": f"{self.hub.url}/{repo}/commit/{name}", "commitOid": name, "success": True})

    def resolve(self, kind: str | None, repo: str, revision: str, path: str) -> None:
        found = self.find(kind or "models", repo)
        commit = self.at(found, revision) if found is not None else None
        if commit is None:
            return None
        if found.gated:
            return self.answer({"error": "Access is restricted"}, 403, {"x-error-code": "GatedRepo"})
        if path not in found.commits[commit]:
            return self.answer({"error": "EntryNotFound"}, 404, {"x-error-code": "EntryNotFound"})
        data, large = found.commits[commit][path]
        headers = {"x-repo-commit": commit, "etag": f'"{_git_hash(data)}"'}
        if not large:
            return self.answer(data, headers=headers)
        oid = hashlib.sha256(data).hexdigest()
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost") + f"/storage/{oid}"
        linked = {"x-linked-etag": f'"{oid}"', "x-linked-size": str(len(data)), "location": elsewhere}
        return self.answer(b"", 302, headers | linked)


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, which the library reads once, when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@contextmanager
def connected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running server that the client takes for the Hub, a token that may write, the client's files in `folder`."""
    with serving() as server:
        point_at(server.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hf"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
        monkeypatch.setenv("HF_TOKEN", "hf_write")
        yield server


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_KIND, _REPO = r"(?P<kind>models|datasets|spaces)", r"(?P<repo>[^/]+/[^/]+?)"
_ROUTES = (
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", f"/api/{_KIND}/{_REPO}", _Handler.info),
    ("GET", f"/api/{_KIND}/{_REPO}/revision/(?P<revision>[^/]+)", _Handler.info),
    ("GET", f"/api/{_KIND}/{_REPO}/tree/(?P<revision>[^/]+)", _Handler.tree),
    ("POST", f"/api/{_KIND}/{_REPO}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    ("POST", f"/api/{_KIND}/{_REPO}/commit/(?P<revision>[^/]+)", _Handler.commit),
    ("POST", f"/(?:datasets/|spaces/)?{_REPO}\\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/storage/(?P<oid>[0-9a-f]{64})", _Handler.store),
    ("GET HEAD", "/storage/(?P<oid>[0-9a-f]{64})", _Handler.serve),
    ("GET HEAD", f"/(?:{_KIND}/)?{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
)
