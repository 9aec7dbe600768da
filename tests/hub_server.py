"""A hub on this machine that speaks as much of the Hugging Face Hub's HTTP as a download needs, faults if asked."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
LARGE = 1000
"""Files from so many bytes on are in Git LFS, and so have a SHA-256."""


class Hub:
    """Repositories are folders by (name, kind); `damaged` and `refused` are paths `repository/file` with a fault."""

    def __init__(self, repositories: Mapping[tuple[str, str], Path]) -> None:
        self.repositories, self.url = dict(repositories), ""
        self.damaged: set[str] = set()
        self.refused: set[str] = set()
        self.sent: list[str] = []
        """Files whose content was sent, `repository/file`."""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of a request."""
        for (repository, kind), folder in self.repositories.items():
            if path.partition("?")[0] == f"/api/{kind}s/{repository}":
                return 200, {"Content-Type": "application/json"}, json.dumps(_info(repository, folder)).encode()
            for place in (repository, f"datasets/{repository}"):
                begin = f"/{place}/resolve/{COMMIT}/"
                if path.startswith(begin) and (folder / path[len(begin):]).is_file():
                    return self._file(repository, folder, path[len(begin):])
        return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such repository"}, b""

    def _file(self, repository: str, folder: Path, name: str) -> tuple[int, dict[str, str], bytes]:
        content = (folder / name).read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        if f"{repository}/{name}" in self.refused:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        if f"{repository}/{name}" in self.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Content-Type": "application/octet-stream"}, content


def _info(repository: str, folder: Path) -> dict[str, object]:
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"rfilename": path.relative_to(folder).as_posix(), "size": len(content), "blobId": blob}
            if len(content) >= LARGE:
                sha256 = hashlib.sha256(content).hexdigest()
                entry |= {"blobId": "0" * 40, "lfs": {"sha256": sha256, "size": len(content), "pointerSize": 134}}
            files.append(entry)
    return {"id": repository, "sha": COMMIT, "siblings": files, "tags": [], "private": False, "downloads": 0,
            "likes": 0}


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at `hub.url`, until the block ends."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def _send(self, with_content: bool) -> None:
            status, headers, content = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_content:
                hub.sent += [self.path.partition("resolve/")[0][1:] + self.path.partition(f"{COMMIT}/")[2]]
                self.wfile.write(content)

        def do_GET(self) -> None:
            self._send(True)

        def do_HEAD(self) -> None:
            self._send(False)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
