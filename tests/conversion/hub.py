"""A stand-in for the Hugging Face hub on this machine: what `huggingface_hub` asks of it, for models."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import huggingface_hub.constants
import huggingface_hub.hf_api

TOKEN = "hf_right"


class Hub:
    """What it holds, and how it is to fail.

    Attributes:
        repositories: The files of each by path, as of its last commit.
        private: Names of the private ones.
        commits: The name of the repository of each commit.
        uploads: Contents of large files by SHA-256, committed or not.
        refuses: By the end of a path that is asked for, the status that it is answered with.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.commits: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.refuses: dict[str, int] = {}
        self.address = ""

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Any, dict[str, str]]:
        """Status, body (bytes, or what becomes JSON) and headers of the answer to a request."""
        for end, status in self.refuses.items():
            if path.endswith(end):
                return status, {"error": "as told"}, {}
        if token != f"Bearer {TOKEN}" and not path.startswith("/lfs/"):  # those addresses are signed
            return 401, {"error": "Invalid credentials in Authorization header"}, {}
        match path.strip("/").split("/"):
            case ["api", "whoami-v2"]:
                return 200, {"type": "user", "name": "ann", "auth": {"type": "access_token"}}, {}
            case ["api", "validate-yaml"]:
                return 200, {"errors": [], "warnings": []}, {}
            case ["api", "repos", "create"]:
                return self._create(json.loads(body))
            case ["api", "models", user, name, "preupload", _]:
                files = [self._mode(file["path"]) for file in json.loads(body)["files"]]
                return (200, {"files": files}, {}) if f"{user}/{name}" in self.repositories else (404, {}, {})
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = json.loads(body)["objects"]
                to = [o | {"actions": {"upload": {"href": f"{self.address}/lfs/{o['oid']}"}}} for o in objects]
                return 200, {"transfer": "basic", "objects": to}, {}
            case ["lfs", digest]:
                assert hashlib.sha256(body).hexdigest() == digest
                self.uploads[digest] = body
                return 200, {}, {}
            case ["api", "models", user, name, "commit", _]:
                return self._commit(f"{user}/{name}", [json.loads(line) for line in body.splitlines()])
            case ["api", "models", user, name, "tree", *_] if files := self.repositories.get(f"{user}/{name}"):
                tree = [{"type": "file", "path": p, "size": len(c), "oid": "b" * 40} for p, c in files.items()]
                return 200, tree, {}
            case ["api", "models", user, name, *_] if files := self.repositories.get(f"{user}/{name}"):
                siblings = [{"rfilename": file} for file in files]
                return 200, {"id": f"{user}/{name}", "sha": "a" * 40, "siblings": siblings}, {}
            case [user, name, "resolve", _, *parts]:
                content = self.repositories.get(f"{user}/{name}", {}).get("/".join(parts))
                if content is None:
                    return 404, {}, {"X-Error-Code": "EntryNotFound"}
                etag = hashlib.sha256(content).hexdigest()
                return 200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": "a" * 40}
        return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}

    def _create(self, asked: dict) -> tuple[int, Any, dict[str, str]]:
        name = f"{asked.get('organization') or 'ann'}/{asked['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.address}/{name}"}, {}
        self.repositories[name] = {}
        if asked.get("private") or asked.get("visibility") == "private":
            self.private.add(name)
        return 200, {"url": f"{self.address}/{name}", "name": name}, {}

    @staticmethod
    def _mode(path: str) -> dict[str, Any]:
        return {
            "path": path,
            "uploadMode": "lfs" if path.endswith(".safetensors") else "regular",
            "shouldIgnore": False,
        }

    def _commit(self, name: str, lines: list[dict]) -> tuple[int, Any, dict[str, str]]:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.repositories[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.repositories[name][value["path"]] = self.uploads[value["oid"]]
        self.commits.append(name)
        address = f"{self.address}/{name}/commit/{'a' * 40}"
        return 200, {"success": True, "commitUrl": address, "commitOid": "a" * 40, "hookOutput": ""}, {}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub at its `address`."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            status, content, headers = hub.answer(self.command, path, body, self.headers.get("Authorization", ""))
            payload = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            kind = "application/vnd.git-lfs+json" if path.endswith("batch") else "application/json"
            for key, value in {"Content-Type": kind, "Content-Length": str(len(payload)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(payload)

        do_POST = do_PUT = do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use(monkeypatch, address: str) -> None:
    """Has this process talk to the hub at an address."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)  # taken when it is imported; peft asks by it
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files then go by HTTP
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
