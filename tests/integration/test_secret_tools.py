"""The programs that people use, with a placeholder, through the part of the proxy that ends TLS."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.secret_host import HOST, PLACEHOLDER, VALUE, World, world

URL = f"https://{HOST}/echo"
PYTHON = """
import sys, urllib.request
asked = urllib.request.Request(sys.argv[1], headers={"x-api-key": sys.argv[2]})
print(urllib.request.urlopen(asked).read().decode())
"""
# With its own hands: fetch finds a proxy by NODE_USE_ENV_PROXY from Node 22.21 and 24 on.
NODE = """
import http from 'node:http'; import https from 'node:https'; import tls from 'node:tls'
const [url, key] = process.argv.slice(1), {host} = new URL(url)
const proxy = new URL(process.env.https_proxy)
const connect = {host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: host + ':443'}
http.request(connect).on('connect', (_, socket) => https.request(url, {
  method: 'POST', headers: {'x-api-key': key}, defaultPort: 443,
  createConnection: () => tls.connect({socket, servername: host}),
}, answer => answer.pipe(process.stdout)).end('hello')).end()
"""


@pytest.fixture
def here(short_dir: Path) -> Iterator[World]:
    with world(short_dir) as made:
        yield made


@pytest.fixture
def run(here: World, tmp_path: Path) -> Callable[..., str]:
    """A program that finds proxy and trust where it finds them in a sandbox."""
    bundle, node = str(here.bundle), str(Path(sys.executable).parent)
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{node}:/usr/bin:/bin",
        "GIT_TERMINAL_PROMPT": "0",
        "NODE_USE_ENV_PROXY": "1",
        **dict.fromkeys(("https_proxy", "HTTPS_PROXY", "ALL_PROXY"), here.door.url),
        **dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"), bundle),
        "NODE_EXTRA_CA_CERTS": bundle,
    }

    def program(*command: str) -> str:
        ran = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert VALUE not in ran.stdout + ran.stderr
        return ran.stdout

    return program


def check(here: World, output: str) -> None:
    assert {key.lower(): v for key, v in json.loads(output).items()}["x-api-key"] == PLACEHOLDER
    headers = {key.lower(): value for key, value in here.server.seen[-1][2].items()}
    assert headers["x-api-key"] == VALUE


def test_curl(here: World, run: Callable[..., str]) -> None:
    check(here, run("curl", "-sS", "-H", f"x-api-key: {PLACEHOLDER}", "--compressed", URL))
    body = run("curl", "-sS", "-H", f"x-api-key: {PLACEHOLDER}", "-d", "x" * 100_000, URL)
    check(here, body)  # it waits for 100 Continue


def test_python(here: World, run: Callable[..., str]) -> None:
    check(here, run(sys.executable, "-I", "-c", PYTHON, URL, PLACEHOLDER))


def test_node(here: World, run: Callable[..., str]) -> None:
    check(here, run("node", "--input-type=module", "-e", NODE, URL, PLACEHOLDER))
    assert here.server.seen[-1][3] == b"hello"


def test_git(here: World, run: Callable[..., str], short_dir: Path) -> None:
    here.server.root = short_dir
    source, bare = short_dir / "source", short_dir / "repository"
    author = {f"GIT_{who}_{what}": "x@x" for who in ("AUTHOR", "COMMITTER") for what in _WHO}
    for command in (
        ["git", "init", "-q", str(source)],
        ["git", "-C", str(source), "commit", "-q", "--allow-empty", "-m", "the first"],
        ["git", "clone", "-q", "--bare", str(source), str(bare)],
        ["git", "-C", str(bare), "update-server-info"],
    ):
        subprocess.run(command, env=os.environ | author, check=True)
    run("git", "clone", "-q", f"https://agent:{PLACEHOLDER}@{HOST}/repository", "cloned")
    assert "the first" in run("git", "-C", "cloned", "log")


_WHO = ("NAME", "EMAIL")
