"""What a payload can do to the table: make it say less, never that what is open holds."""

import os
from pathlib import Path

import pytest

from csb_mcp.model import Outcome, Verification
from tests.support.attacked import alter, attack, broken, repository, row
from tests.support.launched import Host, launched

SHARED_NETWORK = [("network.sh", "args+=(--unshare-net)", ":")]
# Rows that the kernel answers, outside, where nobody inside has a say.
OUTSIDE = {"namespaces", "privileges", "environment", "arguments", "mounts", "process-one"}

KILL = """\
while :; do
  for cmdline in /proc/[0-9]*/cmdline; do
    pid=${cmdline#/proc/}
    { grep -q probes.py $cmdline && kill -9 ${pid%/cmdline} && : >acted; } 2>/dev/null
  done
done
"""
# Says of each attack that it was refused, with the right nonce, in the program's own stream; and
# (REPLACE) sees to it that the program says nothing.
ANSWER = """\
import glob, json, os, signal, time
done = set()
while True:
    for folder in glob.glob("/run/csb/exec/*"):
        try:
            if folder in done or "probes.py" not in open(folder + "/command").read():
                continue
            request = json.loads(open(folder + "/stdin").read())
            text = "".join(
                f"{request['nonce']} {i} refused EPERM\\n" for i in range(len(request["attacks"]))
            )
            fd = os.open(folder + "/stdout", os.O_WRONLY)
            done.add(folder)
            open("acted", "w").close()
            os.write(fd, text.encode()[:4000])
            os.write(fd, text.encode()[4000:])
        except (OSError, ValueError):
            continue
"""
FILL = """\
while :; do
  for out in /run/csb/exec/*/stdout; do
    timeout 1 head -c 3M /dev/zero >$out && : >acted
  done 2>/dev/null
done
"""
# The same, and ends the program first, in whose name it then also speaks to the helper's channel.
REPLACE = ANSWER.replace(
    "            fd = os.open",
    """            for pid in filter(str.isdigit, os.listdir("/proc")):
                if b"probes.py" in open(f"/proc/{pid}/cmdline", "rb").read():
                    os.kill(int(pid), 9)
            fd = os.open""",
)
IMPOSTOR = REPLACE.replace(
    "            for pid in",
    """            for end in range(4, 5):
                channel = os.open(f"/proc/1/fd/{end}", os.O_WRONLY)
                os.write(channel, f"exit {os.path.basename(folder)} 0\\n".encode())
            for pid in""",
)
FAKES = {
    "kill": ("bash", KILL),
    "answer": ("python3", ANSWER),
    "fill": ("bash", FILL),
    "replace": ("python3", REPLACE),
}


async def fooled(base: Path, program: str, text: str) -> Verification:
    host = Host.make(base, os.getuid())
    project = repository(base, os.getuid())
    async with launched(host, project) as box:
        assert box.helper
        (project / "fake").write_text(text)
        await box.helper.start(f"exec {program} ./fake", cwd=None)
        await box.out("until pgrep -f ./fake >/dev/null; do sleep 0.02; done")
        return await attack(box, project, env={})


@pytest.mark.parametrize("fake", FAKES)
async def test_an_open_network_is_never_said_to_hold(
    fake: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alter(monkeypatch, short_dir, SHARED_NETWORK)
    table = await fooled(short_dir, *FAKES[fake])
    assert "namespaces" in broken(table)
    assert not table.held
    for name in ("host-loopback", "host-addresses", "network-devices"):
        assert row(table, name).outcome is not Outcome.HELD, (name, table)


@pytest.mark.parametrize("fake", FAKES)
async def test_a_disturbed_attack_is_no_success(fake: str, short_dir: Path) -> None:
    table = await fooled(short_dir, *FAKES[fake])
    assert not broken(table)
    assert all(row(table, name).outcome is Outcome.HELD for name in OUTSIDE)
    inside = [p for p in table.probes if p.name in ("host-files", "system-calls", "processes")]
    if (short_dir / "app/acted").exists():  # it may come too late, and then there was no harm
        assert {p.outcome for p in inside} == {Outcome.UNTESTED}
        assert not table.held


async def test_who_takes_its_place_altogether_does_not_silence_the_kernel(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the helper's channel, too, a payload can say of the attacks what it likes."""
    alter(monkeypatch, short_dir, SHARED_NETWORK)
    table = await fooled(short_dir, "python3", IMPOSTOR)
    assert "namespaces" in broken(table)
    assert not table.held


async def test_the_program_cannot_be_replaced(short_dir: Path) -> None:
    host = Host.make(short_dir, os.getuid())
    project = repository(short_dir, os.getuid())
    async with launched(host, project) as box:
        for command in (
            "echo >/opt/csb/probes.py",
            "rm -f /opt/csb/probes.py",
            "mv /opt/csb /opt/old",
            "mv /opt /old",
            "mount --bind /tmp /opt/csb",
        ):
            await box.fails(command)
        await box.out("echo 'import os; os._exit(0)' | tee json.py ctypes.py ~/json.py >/dev/null")
        table = await attack(box, project, env={})
    assert not broken(table)
    assert row(table, "host-files").outcome is Outcome.HELD
