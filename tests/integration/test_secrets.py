"""Secrets in real sandboxes: they reach their host, and nothing else ever has them."""

import asyncio
import json
import logging
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from csb_mcp.app import build
from csb_mcp.config import Secret, Settings
from csb_mcp.errors import CreateFailed, InvalidInput
from csb_mcp.host.network.authority import make_authority, make_leaf
from csb_mcp.lib.processes import descendants, peer_pid
from tests.support.internet import Internet, internet
from tests.support.networks import Inside, put_into
from tests.support.processes import is_proxy
from tests.support.sandboxes import create, mentions, running_app, settings_in
from tests.support.secret_host import HOST, VALUE, Server, server_context, serving

OTHER, WRONG, FORGED = "other.example", "wrong.example", "forged.example"
WEB, WEB_OTHER, WEB_WRONG = "198.51.100.7", "198.51.100.8", "198.51.100.9"
WEB_FORGED = "198.51.100.10"
ASK = f'curl -sS -H "x-api-key: $API_KEY" https://{HOST}/echo'
PYTHON = f"""python3 -I -c '
import os, urllib.request
key = {{"x-api-key": os.environ["API_KEY"]}}
asked = urllib.request.Request("https://{HOST}/echo", headers=key)
print(urllib.request.urlopen(asked).read().decode())'"""
# All memory and every file that can be read inside, for what must not be there. The words come on
# stdin, turned round, so that this program does not find itself.
SEARCH = r"""
import os, sys
words = [word[::-1].encode() for word in sys.stdin.read().split()]
def look(where, data):
    for word in words:
        if word in data and not (where.startswith(f"/proc/{os.getpid()}/") and "mem" in where):
            print("FOUND", where)
def memory(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            low, high = (int(part, 16) for part in line.split()[0].split("-"))
            if " r" in line and high - low < 1 << 28:
                try:
                    mem.seek(low)
                    look(f"/proc/{pid}/mem", mem.read(high - low))
                except (OSError, ValueError, OverflowError):
                    pass
read = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        try:
            look(f"/proc/{pid}/{name}", open(f"/proc/{pid}/{name}", "rb").read())
            read += 1
        except OSError:
            pass
    try:
        memory(pid)
        read += 1
    except OSError:
        pass
for top in ("/run", "/home", "/tmp", "/etc", "/dev/shm", "/opt/csb", os.getcwd()):
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            try:
                if os.path.isfile(path) and os.path.getsize(path) < 1 << 24:
                    look(path, open(path, "rb").read())
                    read += 1
            except OSError:
                pass
print("read", read)
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Internet]:
    with internet() as made:
        made.names.answer(HOST, WEB)
        made.names.answer(OTHER, WEB_OTHER)
        made.names.answer(WRONG, WEB_WRONG)
        made.names.answer(FORGED, WEB_FORGED)
        yield made


@pytest.fixture(scope="module")
def hosts(net: Internet) -> Iterator[dict[str, Server]]:
    """HTTPS servers out there, by the same authority; WRONG's shows another name."""
    authority, key = make_authority("theirs", [HOST, OTHER, WRONG])
    (net.folder / "theirs.pem").write_text(authority)

    def server(address: str, host: str) -> Server:
        context = server_context(net.folder, *make_leaf(authority, key, host))
        return Server(context, net.outside.listen(address, 443))

    with (
        serving(server(WEB, HOST)) as right,
        serving(server(WEB_OTHER, OTHER)) as other,
        serving(server(WEB_WRONG, OTHER)) as wrong,
    ):
        yield {HOST: right, OTHER: other, WRONG: wrong}


@pytest.fixture
def file(base: Path) -> Path:
    path = base / "token"
    path.write_text(VALUE + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def settings(base: Path, net: Internet, file: Path) -> Settings:
    theirs = net.folder / "theirs.pem"
    api = Secret(host=HOST, variable="API_KEY", file=file, authorities=theirs)
    wrong = replace(api, host=WRONG, variable="WRONG_KEY")
    return settings_in(base, secrets={"api": api, "wrong": wrong})


@pytest.fixture(autouse=True)
def there(
    net: Internet, hosts: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Server]:
    put_into(net, monkeypatch)
    for server in hosts.values():
        server.seen.clear()
    return hosts


def sent(server: Server) -> str:
    """The key of the last request that a host got."""
    return {key.lower(): value for key, value in server.seen[-1][2].items()}["x-api-key"]


async def test_a_secret_reaches_its_host_and_nothing_else(
    settings: Settings,
    base: Path,
    project: Path,
    there: dict[str, Server],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running_app(settings) as app:
        record = await create(
            app, project, network="allowlist", secrets=("api",), allow_hosts=(OTHER,)
        )
        inside = Inside(app, record.id)
        placeholder = await inside.out("echo $API_KEY")
        assert placeholder.startswith("csb-secret-api-")
        count = "grep -c BEGIN.CERTIFICATE $SSL_CERT_FILE /etc/ssl/certs/ca-certificates.crt"
        system = Path("/etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERTIFICATE")
        counted = (await inside.out(count)).split()
        assert [int(line.split(":")[1]) for line in counted] == [system + 1] * 2
        plain = f"env -u CURL_CA_BUNDLE -u SSL_CERT_FILE {ASK}"  # by the system's own file
        for command in (ASK, ASK.replace("-H", "--compressed -H"), PYTHON, plain):
            there[HOST].seen.clear()
            answered = json.loads(await inside.out(command))
            assert {k.lower(): v for k, v in answered.items()}["x-api-key"] == placeholder
            assert sent(there[HOST]) == VALUE
        assert await inside.out(ASK.replace(HOST, OTHER).replace("-sS", "-sSk"))
        assert sent(there[OTHER]) == placeholder, "another host gets the placeholder"
        refused = await inside.run(ASK.replace(f"https://{HOST}", f"http://{HOST}"))
        assert VALUE not in refused.stdout
        key = (settings.runtime_dir / record.id / "gate/authority.key").read_text().split("\n")[1]
        words = " ".join(word[::-1] for word in (VALUE, key))
        (project / "search.py").write_text(SEARCH)
        found = await inside.run("python3 -I search.py", stdin=words)
        assert "FOUND" not in found.stdout, found.stdout
        (project / "file").write_text(placeholder)
        found = await inside.run("sleep 9 & python3 -I search.py; kill %1", stdin=placeholder[::-1])
        for where in (r"/proc/\d+/mem", r"/proc/\d+/environ", f"{project}/file"):
            assert re.search(f"FOUND {where}\n", found.stdout), "it does look there"
        egress = await app.service.egress(record.id)
        (line, *_) = [c for c in egress.connections if c.host == HOST and c.received]
        assert line.sent > 100
        shown = f"{await app.service.get(record.id)}{egress}{record}{caplog.text}"
        assert VALUE not in shown
        _nothing_has(VALUE, settings, project)
        assert not mentions(VALUE), "argv and environments of processes"
    assert VALUE not in caplog.text


def _nothing_has(value: str, *places: Settings | Path) -> None:
    """No file of ours: rows, logs, the sandbox's folders."""
    for place in places:
        tops = [place] if isinstance(place, Path) else [place.state_dir, place.runtime_dir]
        for top in tops:
            for path in (p for p in top.rglob("*") if p.is_file()):
                assert value.encode() not in path.read_bytes(), path


async def test_git_and_chromium_trust_the_authority_for_that_host_alone(
    settings: Settings, project: Path, there: dict[str, Server], base: Path, net: Internet
) -> None:
    there[HOST].root = base
    author = {f"GIT_{who}_{what}": "x@x" for who in _WHO for what in ("NAME", "EMAIL")}
    for command in (
        ["git", "init", "-q", str(base / "source")],
        ["git", "-C", str(base / "source"), "commit", "-q", "--allow-empty", "-m", "the first"],
        ["git", "clone", "-q", "--bare", str(base / "source"), str(base / "repository")],
        ["git", "-C", str(base / "repository"), "update-server-info"],
    ):
        subprocess.run(command, env=os.environ | author, check=True)
    async with running_app(settings) as app:
        record = await create(
            app, project, network="allowlist", secrets=("api",), allow_hosts=(FORGED,)
        )
        inside = Inside(app, record.id)
        await inside.out(f"cd /tmp && git clone -q https://agent:$API_KEY@{HOST}/repository c")
        assert "the first" in await inside.out("git -C /tmp/c log")
        browse = f"chromium --headless --dump-dom https://{HOST}/echo 2>/dev/null"
        assert "Chrome" in await inside.out(browse), "what it sent as its name came back"
        gate = settings.runtime_dir / record.id / "gate"
        pair = [(gate / f"authority.{end}").read_text() for end in ("pem", "key")]
        context = server_context(base, *make_leaf(pair[0], pair[1], FORGED))
        with serving(Server(context, net.outside.listen(WEB_FORGED, 443))) as forged:
            for command in (ASK, PYTHON, f"git ls-remote https://{HOST}/repository", browse):
                await inside.run(command.replace(HOST, FORGED))
            assert forged.seen == [], "whoever stole its key can play no other host"
            assert await inside.out(ASK.replace(HOST, FORGED).replace("-sS", "-sSk"))
            assert len(forged.seen) == 1


_WHO = ("AUTHOR", "COMMITTER")


async def test_a_host_with_a_wrong_certificate_gets_nothing(
    settings: Settings, project: Path, there: dict[str, Server]
) -> None:
    async with running_app(settings) as app:
        record = await create(app, project, network="allowlist", secrets=("api", "wrong"))
        inside = Inside(app, record.id)
        words = await inside.out(ASK.replace(HOST, WRONG).replace("API", "WRONG"))
        assert f"the certificate of {WRONG} is not valid" in words
        assert there[WRONG].seen == []
        egress = await app.service.egress(record.id)
        assert any("not valid" in c.why for c in egress.connections)
        await inside.out(ASK.replace("API", "WRONG"))
        assert sent(there[HOST]).startswith("csb-secret-wrong-"), "one secret, one host"


async def test_the_next_daemon_goes_on_with_them(
    settings: Settings, project: Path, there: dict[str, Server], file: Path
) -> None:
    first = await build(settings)
    record = await create(first, project, network="allowlist", secrets=("api",))
    placeholder = await Inside(first, record.id).out("echo $API_KEY")
    await first.close()
    file.write_text("another-value-that-came-meanwhile\n")
    async with running_app(settings) as app:
        inside = Inside(app, record.id)
        assert placeholder in await inside.out(ASK)
        assert sent(there[HOST]) == "another-value-that-came-meanwhile"
        assert await inside.out("echo $API_KEY") == placeholder
        root = peer_pid(settings.runtime_dir / record.id / "tmux")
        (proxy,) = [pid for pid in descendants(root) if is_proxy(pid)]
        os.kill(proxy, 9)
        async with asyncio.timeout(20):  # until the next proxy has them, too
            while placeholder not in (await inside.run(ASK)).stdout:
                await asyncio.sleep(0.05)
    file.unlink()


async def test_what_cannot_be_had_is_told_and_leaves_nothing(
    settings: Settings, project: Path, file: Path
) -> None:
    async with running_app(settings) as app:
        with pytest.raises(InvalidInput, match="nothing_of_that_name"):
            await create(app, project, network="allowlist", secrets=("nothing_of_that_name",))
        file.chmod(0o644)
        if os.getuid() == 0:
            os.chown(file, 0, 65533)
        with pytest.raises(CreateFailed, match="chmod 600") as caught:
            await create(app, project, network="allowlist", secrets=("api",))
        assert VALUE not in str(caught.value)
        assert sorted(p.name for p in settings.runtime_dir.iterdir()) == ["launchers"]
        assert not mentions(str(project))
    with sqlite3.connect(next(settings.state_dir.glob("*.db"))) as rows:
        assert VALUE not in "".join(rows.iterdump())
