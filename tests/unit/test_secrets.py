"""Secrets on the daemon's side: values read safely, an authority for those hosts alone."""

import asyncio
import json
import logging
import os
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from csb_mcp.config import Secret, Settings
from csb_mcp.errors import CsbError, EgressFailed, HostUnable, InvalidInput
from csb_mcp.host.network.authority import make_authority, make_leaf
from csb_mcp.host.network.proxy import tls
from csb_mcp.host.network.secrets import Apis, Secrets
from csb_mcp.model import Folders, Sandbox, SandboxSpec, SandboxState

VALUE = "sk-0123456789-the-value"
HOST = "api.secret.example"
SECRET = Secret(host=HOST, variable="API_KEY", environment="CSB_TEST_SECRET")


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "project").mkdir()
    return Folders(tmp_path / "run", tmp_path / "state")


@pytest.fixture(autouse=True)
def value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSB_TEST_SECRET", VALUE)


def made(tmp_path: Path, **known: Secret) -> Secrets:
    runtime, state = tmp_path / "r", tmp_path / "s"
    settings = Settings(
        state_dir=state,
        runtime_dir=runtime,
        config_file=tmp_path / "c",
        project_roots=(tmp_path,),
        secrets=known,
    )
    return Secrets(settings)


def sandbox(tmp_path: Path, *names: str, **spec: Any) -> Sandbox:
    asked: dict[str, Any] = {"network": "allowlist", "secrets": names} | spec
    made = SandboxSpec(project_dir=tmp_path / "project", **asked)
    return Sandbox(
        id="abcd12", spec=made, state=SandboxState.CREATING, uid=os.geteuid(), created_at=0.0
    )


def secret_in(path: Path, text: str = VALUE + "\n", mode: int = 0o600) -> Secret:
    path.write_text(text)
    path.chmod(mode)
    return replace(SECRET, environment=None, file=path)


async def test_a_sandbox_without_secrets_costs_nothing(tmp_path: Path, folders: Folders) -> None:
    code = (
        "import sys, csb_mcp.host.network.gates, csb_mcp.host.network.secrets\n"
        "print([m for m in sys.modules if m.startswith('cryptography')])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "[]\n"
    secrets = made(tmp_path, api=SECRET)
    assert await secrets.prepare(sandbox(tmp_path), folders) == {}
    assert await secrets.message(sandbox(tmp_path), folders) is None
    assert not folders.gate.exists()


async def test_the_payload_gets_placeholders_and_the_proxy_the_value(
    tmp_path: Path, folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = secret_in(tmp_path / "token")
    known = {"api": SECRET, "a token.": replace(file, variable="TOKEN", host="git.example")}
    secrets, asked = made(tmp_path, **known), sandbox(tmp_path, "api", "a token.")
    environment = await secrets.prepare(asked, folders)
    assert set(environment) == {"API_KEY", "TOKEN"}
    assert environment["API_KEY"].startswith("csb-secret-api-")
    assert environment["TOKEN"].startswith("csb-secret-a-token--")
    message = await secrets.message(asked, folders)
    assert message is not None
    assert {item["value"] for item in message["secrets"]} == {VALUE}
    assert {item["placeholder"] for item in message["secrets"]} == set(environment.values())
    assert set(tls.entries(message)) == {HOST, "git.example"}
    assert sorted(p.name for p in folders.gate.iterdir()) == [
        *("authority.key", "authority.pem", "placeholders.json")
    ]
    assert (folders.gate / "authority.key").stat().st_mode & 0o777 == 0o600
    for path in folders.gate.iterdir():
        assert VALUE not in path.read_text()
    assert VALUE not in caplog.text


async def test_the_next_daemon_gives_the_same_placeholders_and_authority(
    tmp_path: Path, folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    secret = secret_in(tmp_path / "token")
    asked = sandbox(tmp_path, "api")
    environment = await made(tmp_path, api=secret).prepare(asked, folders)
    authority = folders.authority.read_text()
    assert secret.file
    secret.file.write_text("another-value\n")  # rotated meanwhile
    message = await made(tmp_path, api=secret).message(asked, folders)
    assert message is not None
    assert message["secrets"][0]["placeholder"] == environment["API_KEY"]
    assert message["secrets"][0]["value"] == "another-value"
    assert folders.authority.read_text() == authority
    _verify(tmp_path, authority, message["secrets"][0]["certificate"], HOST)
    secret.file.unlink()
    message = await made(tmp_path, api=secret).message(asked, folders)
    assert message == {"do": "secrets", "secrets": [], "authorities": {}}
    assert "its secret api is not put in" in caplog.text
    message = await made(tmp_path).message(asked, folders)
    assert message == {"do": "secrets", "secrets": [], "authorities": {}}
    (folders.gate / "placeholders.json").unlink()
    with pytest.raises(EgressFailed):
        await made(tmp_path, api=SECRET).message(asked, folders)


async def test_placeholders_that_are_not_ours_are_not_believed(
    tmp_path: Path, folders: Folders
) -> None:
    asked = sandbox(tmp_path, "api")
    await made(tmp_path, api=SECRET).prepare(asked, folders)
    (folders.gate / "placeholders.json").write_text(json.dumps({"api": "e"}))
    message = await made(tmp_path, api=SECRET).message(asked, folders)
    assert message is not None
    assert message["secrets"] == []


ENCRYPTED = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("placeholders.json", b"[" * 60_000),
        ("placeholders.json", b"\xff"),
        ("authority.key", ENCRYPTED),
        ("authority.key", b""),
        ("authority.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ],
)
async def test_what_somebody_put_in_the_place_of_its_files_is_refused(
    tmp_path: Path, folders: Folders, name: str, content: bytes
) -> None:
    asked = sandbox(tmp_path, "api")
    await made(tmp_path, api=SECRET).prepare(asked, folders)
    (folders.gate / name).write_bytes(content)
    with pytest.raises(EgressFailed):
        await made(tmp_path, api=SECRET).message(asked, folders)


async def refused(tmp_path: Path, folders: Folders, secret: Secret, **spec: Any) -> CsbError:
    with pytest.raises(CsbError) as caught:
        await made(tmp_path, api=secret).prepare(sandbox(tmp_path, "api", **spec), folders)
    assert not folders.gate.exists()
    assert VALUE not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("short", "8 to 4096"),
        (VALUE * 300, "8 to 4096"),
        (VALUE + "\nX-More: 1", "printable"),
        (VALUE + "\r\n\r\n", "printable"),
        (" " + VALUE, "blanks"),
        (VALUE + "\u00e9", "printable"),
        ("", "not 0"),
    ],
)
async def test_a_value_that_no_header_can_hold_is_refused(
    tmp_path: Path, folders: Folders, text: str, words: str
) -> None:
    error = await refused(tmp_path, folders, secret_in(tmp_path / "token", text))
    assert isinstance(error, HostUnable)
    assert words in str(error)
    assert "secret api" in str(error)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644])
async def test_a_file_that_others_can_read_is_refused(
    tmp_path: Path, folders: Folders, mode: int
) -> None:
    secret = secret_in(tmp_path / "token", mode=mode)
    assert secret.file
    if os.getuid() == 0:  # whose group may read: see _exposed
        os.chown(secret.file, 0, 65533)
    error = await refused(tmp_path, folders, secret)
    assert f"chmod 600 {secret.file}" in str(error)


async def test_other_ways_not_to_have_a_value(tmp_path: Path, folders: Folders) -> None:
    inside = secret_in(tmp_path / "project/token")
    (tmp_path / "link").symlink_to(inside.file or "")
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for secret, words in (
        (replace(SECRET, environment="CSB_TEST_NONE"), "no variable CSB_TEST_NONE"),
        (replace(inside, file=tmp_path / "none"), "No such file"),
        (replace(inside, file=tmp_path / "folder"), "not a file"),
        (replace(inside, file=tmp_path / "fifo"), "not a file"),
        (inside, "lies in the project"),
        (replace(inside, file=tmp_path / "link"), "lies in the project"),
        (replace(SECRET, authorities=tmp_path / "none"), "No such file"),
        (replace(SECRET, authorities=inside.file), "must hold certificates"),
    ):
        assert words in str(await refused(tmp_path, folders, secret))


def test_the_doctor_is_told_of_each_that_cannot_be_read(tmp_path: Path) -> None:
    good, bad = secret_in(tmp_path / "good"), secret_in(tmp_path / "bad", "short")
    none = replace(SECRET, environment="CSB_TEST_NONE")
    problems = made(tmp_path, good=good, bad=bad, none=none).problems()
    assert [p.why.split(":")[0] for p in problems] == ["secret bad", "secret none"]
    assert not any(p.fatal for p in problems)


@pytest.mark.root
async def test_a_file_of_somebody_else_is_refused(tmp_path: Path, folders: Folders) -> None:
    secret = secret_in(tmp_path / "token")
    os.chown(secret.file or "", 65533, 65533)
    assert "somebody else" in str(await refused(tmp_path, folders, secret))


async def test_what_cannot_be_asked_for(tmp_path: Path, folders: Folders) -> None:
    error = await refused(tmp_path, folders, SECRET, network="none")
    assert "network allowlist" in str(error)
    assert "both set" in str(await refused(tmp_path, folders, SECRET, env={"API_KEY": "x"}))
    for variable in ("A KEY", "1", "IFS", ""):
        error = await refused(tmp_path, folders, replace(SECRET, variable=variable))
        assert "cannot be a variable" in str(error)
    twice = made(tmp_path, api=SECRET, other=SECRET)
    with pytest.raises(InvalidInput, match="other and api both set"):
        await twice.prepare(sandbox(tmp_path, "api", "other"), folders)
    with pytest.raises(InvalidInput) as caught:
        await twice.prepare(sandbox(tmp_path, "nope"), folders)
    assert caught.value.choices == ("api", "other")


async def test_one_that_is_wanted_inside_is_given_to_that_sandbox_and_to_no_proxy(
    tmp_path: Path, folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    open_one = replace(SECRET, variable="OPEN", inside=True)
    secrets = made(tmp_path, api=SECRET, open=open_one)
    alone = sandbox(tmp_path, "open", network="full")
    assert await secrets.prepare(alone, folders) == {"OPEN": VALUE}
    assert await secrets.message(alone, folders) is None
    assert not folders.gate.exists()
    both = sandbox(tmp_path, "open", "api")
    given = await secrets.prepare(both, folders)
    assert given["OPEN"] == VALUE
    assert given["API_KEY"].startswith("csb-secret-api-")
    message = await secrets.message(both, folders)
    assert message is not None
    assert [item["placeholder"] for item in message["secrets"]] == [given["API_KEY"]]
    for path in folders.gate.iterdir():
        assert VALUE not in path.read_text()
    assert VALUE not in caplog.text


@pytest.mark.parametrize(
    ("apis", "counted"),
    [
        (Apis(), None),
        (Apis(hosts=frozenset({HOST})), [HOST]),
        (Apis(variables=frozenset({"API_KEY"})), [HOST]),
        (Apis(frozenset({"other.example"}), frozenset({"OTHER"})), None),
    ],
)
async def test_the_proxy_is_told_which_host_is_an_api(
    tmp_path: Path, folders: Folders, apis: Apis, counted: list[str] | None
) -> None:
    secrets = made(tmp_path, api=SECRET)
    secrets._apis = apis  # pyright: ignore[reportPrivateUsage]
    asked = sandbox(tmp_path, "api")
    await secrets.prepare(asked, folders)
    message = await secrets.message(asked, folders)
    assert message is not None
    assert message.get("counted") == counted
    assert tls.entries(message)[HOST].counted == (counted is not None)


async def test_making_them_does_not_hold_up_the_loop_for_long(
    tmp_path: Path, folders: Folders
) -> None:
    loop, longest = asyncio.get_running_loop(), 0.0
    task = loop.create_task(made(tmp_path, api=SECRET).prepare(sandbox(tmp_path, "api"), folders))
    before = loop.time()
    while not task.done():
        await asyncio.sleep(0)
        longest, before = max(longest, loop.time() - before), loop.time()
    assert (await task).keys() == {"API_KEY"}
    assert longest < 0.5


def _verify(tmp_path: Path, authority: str, leaf: str, host: str) -> str:
    """What openssl says; it checks names, constraints and everything that is strict about them."""
    for name, text in (("authority.pem", authority), ("leaf.pem", leaf)):
        (tmp_path / name).write_text(text)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname"]
    words = [host, "-CAfile", str(tmp_path / "authority.pem"), str(tmp_path / "leaf.pem")]
    ran = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    return "" if ran.returncode == 0 else ran.stderr + ran.stdout


def test_an_authority_vouches_for_its_hosts_alone(tmp_path: Path) -> None:
    authority, key = make_authority("abcd12", [HOST, "git.example"])
    for host in (HOST, "git.example"):
        leaf, _ = make_leaf(authority, key, host)
        assert _verify(tmp_path, authority, leaf, host) == ""
        assert "hostname mismatch" in _verify(tmp_path, authority, leaf, "www.example")
    for host in ("www.example", "example", "secret.example"):
        leaf, _ = make_leaf(authority, key, host)
        assert "permitted subtree violation" in _verify(tmp_path, authority, leaf, host)


def test_an_authority_says_nothing_about_addresses(tmp_path: Path) -> None:
    """Made by hand, as who had stolen the key would."""
    authority, key = make_authority("abcd12", [HOST])
    for name, text in (("ca.pem", authority), ("ca.key", key)):
        (tmp_path / name).write_text(text)
    openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subject = ["-subj", "/CN=x", "-addext", "subjectAltName=IP:198.51.100.7", "-nodes"]
    signed = ["-CA", str(tmp_path / "ca.pem"), "-CAkey", str(tmp_path / "ca.key")]
    output = ["-out", str(tmp_path / "made.pem"), "-keyout", str(tmp_path / "made.key")]
    subprocess.run([*openssl, *subject, *signed, *output], check=True, capture_output=True)
    verify = ["openssl", "verify", "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "made.pem")]
    ran = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert "subtree violation" in ran.stderr + ran.stdout


def test_a_context_accepts_what_an_authority_made() -> None:
    authority, key = make_authority("abcd12", ["a" * 60 + ".example"])
    certificate, leaf_key = make_leaf(authority, key, "a" * 60 + ".example")
    item = {"host": "a" * 60 + ".example", "placeholder": "p", "value": VALUE}
    item |= {"certificate": certificate, "key": leaf_key}
    (entry,) = tls.entries({"secrets": [item]}).values()
    assert entry.inside.verify_mode == ssl.CERT_NONE
