"""A small web: files by host and path, a git repository, a Python index and an npm registry."""

import base64
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import zipfile
from pathlib import Path

from tests.support.servers import Handler, Server, fields, read_head

TOLD = "told by the shelf"
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@a.test", "-c", "init.defaultBranch=main"]


def shelf(files: dict[str, bytes]) -> Handler:
    """Serves ``HOST/PATH``; what it does not have is a 404."""

    def serve(_: Server, connection: socket.socket) -> None:
        head, _rest = read_head(connection)
        path = head.decode("latin-1").split(" ")[1].partition("?")[0]
        found = files.get(dict(fields(head)).get("host", "").partition(":")[0] + path)
        status = b"200 OK" if found is not None else b"404 Not Found"
        kind = b"text/html" if path.endswith("/") else b"application/octet-stream"
        lines = (status, kind, len(found or b""))
        connection.sendall(
            b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            % lines
        )
        connection.sendall(found or b"")

    return serve


def everything(folder: Path) -> dict[str, bytes]:
    """What each tool is to find at its host; ``folder`` is for making it."""
    page = f"<title>t</title><p id=p></p><script>p.textContent = '{TOLD}'</script>".encode()
    return {"a.test/": page} | _git(folder) | _python() | _npm()


def _git(folder: Path) -> dict[str, bytes]:
    work, bare = folder / "work", folder / "bare"
    env = {"PATH": os.defpath, "HOME": str(folder)}
    for words in (
        ["init", "-q", str(work)],
        ["-C", str(work), "commit", "-q", "--allow-empty", "-m", TOLD],
        ["clone", "-q", "--bare", str(work), str(bare)],
        ["-C", str(bare), "update-server-info"],
    ):
        subprocess.run([*GIT, *words], env=env, check=True, timeout=20)
    paths = [path for path in bare.rglob("*") if path.is_file()]
    return {f"git.test/repo.git/{path.relative_to(bare)}": path.read_bytes() for path in paths}


def _python() -> dict[str, bytes]:
    name, file = "tiny-1.0.dist-info", io.BytesIO()
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr("tiny.py", f"TOLD = {TOLD!r}\n")
        wheel.writestr(f"{name}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{name}/RECORD", "")
    link = b'<a href="/tiny-1.0-py3-none-any.whl">tiny-1.0-py3-none-any.whl</a>'
    host = "python.test"
    return {
        f"{host}/simple/tiny/": b"<!DOCTYPE html>" + link,
        f"{host}/tiny-1.0-py3-none-any.whl": file.getvalue(),
    }


def _npm() -> dict[str, bytes]:
    told, file = {"name": "tiny", "version": "1.0.0", "description": TOLD}, io.BytesIO()
    text = json.dumps(told).encode()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    data = file.getvalue()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    dist = {"tarball": "https://npm.test/tiny.tgz", "integrity": integrity}
    index = {
        "name": "tiny",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": told | {"dist": dist}},
    }
    return {"npm.test/tiny": json.dumps(index).encode(), "npm.test/tiny.tgz": data}
