"""One sandbox, driven through the service: what a supervisor does, and what stays afterwards."""

import asyncio
import io
import os
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from PIL import Image as Pillow

from csb_mcp.app import App
from csb_mcp.config import Settings
from csb_mcp.errors import (
    Ambiguous,
    Conflict,
    CsbError,
    Forbidden,
    InvalidInput,
    NotFound,
    SandboxEnded,
)
from csb_mcp.model import (
    BackgroundCommand,
    CommandResult,
    Exited,
    FileExists,
    Geometry,
    PortOpen,
    Region,
    Sandbox,
    SandboxState,
    ScreenChanged,
    ScreenStable,
    TerminalIdle,
    TerminalRegex,
    TerminalText,
)
from tests.support.sandboxes import create, mentions, type_line, typed, until


async def run(app: App, sandbox: Sandbox, command: str, **options: object) -> CommandResult:
    values: dict[str, object] = {"timeout": 20, "cwd": None, "stdin": None, "background": False}
    result = await app.service.run_command(sandbox.id, command, **(values | options))  # pyright: ignore[reportArgumentType]
    assert isinstance(result, CommandResult)
    return result


async def test_a_whole_life(app: App, settings: Settings, project: Path) -> None:
    service = app.service
    sandbox = await create(app, project, name="first")
    assert sandbox.state is SandboxState.RUNNING
    assert sandbox.uid != 0
    await typed(service, "first", "echo $((6*7)) > made; echo done-$((1+1))", "done-2")
    assert (project / "made").read_text() == "42\n"
    assert (project / "made").stat().st_uid == project.stat().st_uid
    result = await run(app, sandbox, "cat made; echo oops >&2; exit 3")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "42\n", "oops\n")
    shot = await service.screenshot(
        "first", region=None, max_width=1280, format="png", if_changed_since=None
    )
    assert shot.image is not None
    assert Pillow.open(io.BytesIO(shot.image.data)).size == (1280, 800)
    usage = (await service.metrics(sandbox.id[:5])).sandbox
    assert usage is not None
    assert usage.processes >= 5
    stopped = await service.stop("first")
    assert (stopped.state, stopped.reason) == (SandboxState.STOPPED, "stopped on request")
    assert not (settings.runtime_dir / sandbox.id).exists()
    assert not mentions(str(settings.runtime_dir / sandbox.id))
    words = await service.read_terminal("first", cursor=None, lines=None)
    assert any("done-2" in text for _, text in words.rows)
    last = await service.screenshot(
        "first", region=None, max_width=1280, format="png", if_changed_since=None
    )
    assert last.image is not None
    assert b"done-2" in (settings.state_dir / "sandboxes" / sandbox.id / "log").read_bytes()
    await service.delete("first")
    assert not (settings.state_dir / "sandboxes" / sandbox.id).exists()
    assert await service.list() == []


async def test_the_payloads_end_is_the_sandboxs_end(app: App, sandbox: Sandbox) -> None:
    cursor = await type_line(app.service, sandbox.id, "echo last words; exit 7")
    result = await until(app.service, sandbox.id, Exited(), cursor=cursor)
    assert result.matches[0].evidence
    record = await app.service.get(sandbox.id)
    assert (record.state, record.exit_status) == (SandboxState.DEAD, 7), record.reason
    assert record.reason == "its program exited with status 7"
    view = await app.service.read_terminal(sandbox.id, cursor=None, lines=None)
    assert "last words" in [text for _, text in view.rows]
    with pytest.raises(SandboxEnded, match="dead"):
        await run(app, sandbox, "true")


async def test_text_printed_with_the_end_is_not_missed(app: App, project: Path) -> None:
    command = ("/bin/bash", "-c", "sleep 0.2; echo it is $((40+2))")
    sandbox = await create(app, project, agent="command", command=command)
    result = await until(app.service, sandbox.id, TerminalText("it is 42"))
    assert result.matches[0].evidence == "it is 42"


async def test_ttl_ends_it(app: App, project: Path) -> None:
    sandbox = await create(app, project, ttl=0.7)
    await until(app.service, sandbox.id, Exited())
    record = await app.service.get(sandbox.id)
    assert (record.state, record.reason) == (SandboxState.STOPPED, "its ttl has passed")
    assert record.ended_at is not None
    assert record.ended_at - record.created_at >= 0.7


async def test_conditions_come_true_one_by_one(app: App, sandbox: Sandbox) -> None:
    service = app.service
    cursor = await type_line(service, sandbox.id, "sleep 0.3; echo Value: $((3*5)); touch flag")
    await until(
        service,
        sandbox.id,
        TerminalRegex(r"^Value: \d+$"),
        FileExists("flag"),
        TerminalIdle(0.2),
        cursor=cursor,
    )
    background = await service.run_command(
        sandbox.id,
        "python3 -m http.server 8123 --bind 127.0.0.1",
        timeout=5,
        cwd=None,
        stdin=None,
        background=True,
    )
    assert isinstance(background, BackgroundCommand)
    await until(service, sandbox.id, PortOpen(8123))
    answer = await run(app, sandbox, "exec 3<>/dev/tcp/127.0.0.1/8123 && echo connected")
    assert answer.stdout == "connected\n"


async def test_screen_conditions_and_frames(app: App, sandbox: Sandbox) -> None:
    service = app.service

    async def shot(since: str | None = None, **options: object):  # noqa: ANN202
        values: dict[str, object] = {"region": None, "max_width": 1280, "format": "png"}
        return await service.screenshot(sandbox.id, if_changed_since=since, **(values | options))  # pyright: ignore[reportArgumentType]

    first = await shot()
    assert (await shot(first.frame)).image is None
    await service.run_command(
        sandbox.id,
        "xterm -geometry 60x20+10+10 -e 'sleep 60'",
        timeout=5,
        cwd=None,
        stdin=None,
        background=True,
    )
    changed = await until(service, sandbox.id, ScreenChanged(first.frame))
    assert changed.matches[0].evidence.startswith("frame ")
    await until(service, sandbox.id, ScreenStable(0.5))
    after = await shot(first.frame)
    assert after.image is not None
    assert after.frame != first.frame
    small = await shot(region=Region(0, 0, 400, 200), max_width=100)
    assert small.image is not None
    assert (small.image.width, small.image.height, small.image.scale) == (100, 50, 0.25)


async def test_any_over_several_sandboxes(app: App, base: Path) -> None:
    made: list[Sandbox] = []
    for name in ("one", "two"):
        folder = base / "projects" / name
        folder.mkdir(parents=True)
        made.append(await create(app, folder, name=name))
    cursor = await type_line(app.service, "two", "echo only-$((1+1))")
    result = await app.service.wait(
        ["one", "two"], [TerminalText("only-2")], mode="any", timeout=10, cursor={"two": cursor}
    )
    assert [match.sandbox for match in result.matches] == [made[1].id]
    assert set(result.cursors) == {made[0].id, made[1].id}
    late = await app.service.wait(
        ["one", "two"], [TerminalText("only-2")], mode="all", timeout=0.3, cursor={}
    )
    assert not late.satisfied
    assert 0.25 < late.waited < 2


async def test_a_wait_that_cannot_come_true_ends_at_once(app: App, sandbox: Sandbox) -> None:
    await type_line(app.service, sandbox.id, "sleep 0.3; exit 1")
    began = time.monotonic()
    with pytest.raises(SandboxEnded):
        await app.service.wait(
            [sandbox.id], [TerminalText("never")], mode="any", timeout=30, cursor={}
        )
    assert time.monotonic() - began < 10


async def test_changed_rows_since_a_cursor(app: App, sandbox: Sandbox) -> None:
    service = app.service
    before = await service.read_terminal(sandbox.id, cursor=None, lines=None)
    await typed(service, sandbox.id, "seq -s, 1 5; echo e''nd", "end")
    await until(service, sandbox.id, TerminalIdle(0.3))
    after = await service.read_terminal(sandbox.id, cursor=before.cursor, lines=None)
    texts = [text for _, text in after.rows]
    assert after.changed_only
    assert "1,2,3,4,5" in texts
    again = await service.read_terminal(sandbox.id, cursor=after.cursor, lines=None)
    assert again.rows == ()
    with pytest.raises(InvalidInput, match="belongs to"):
        await service.read_terminal(sandbox.id, cursor="b" + after.cursor[1:], lines=None)


async def test_environment_reaches_the_payload_and_no_argument_vector(
    app: App, project: Path
) -> None:
    sandbox = await create(app, project, env={"MY_TOKEN": "tok-93-x", "MULTI": "a b\nc'd\"$"})
    await typed(app.service, sandbox.id, 'echo [$MY_TOKEN]; printf %q "$MULTI"', "[tok-93-x]")
    result = await run(app, sandbox, 'printf %s "$MULTI"')
    assert result.stdout == "a b\nc'd\"$"
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            assert b"tok-93-x" not in words


async def test_walls_are_the_same_for_terminal_and_command(app: App, sandbox: Sandbox) -> None:
    look = "awk '/^(Seccomp|NoNewPrivs|CapEff|CapBnd|CapPrm|CapAmb):/ {printf $1 $2 \" \"}' "
    walls = (
        "CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:0000000000000000"
        " CapAmb:0000000000000000 NoNewPrivs:1 Seccomp:2 "
    )
    assert (await run(app, sandbox, look + "/proc/self/status")).stdout == walls
    await typed(app.service, sandbox.id, look + "/proc/$$/status > walls; echo d''one", "done")
    assert (sandbox.spec.project_dir / "walls").read_text() == walls


async def test_protected_paths_that_appear_are_told(app: App, project: Path) -> None:
    sandbox = await create(app, project)
    assert ".envrc" in sandbox.unguarded
    await run(app, sandbox, "echo x > .envrc")
    deadline = time.monotonic() + 5
    while not (record := await app.service.get(sandbox.id)).warnings:
        assert time.monotonic() < deadline
        await until(app.service, sandbox.id, TerminalIdle(0.05))
    assert ".envrc" in record.warnings[0]


async def test_events_are_followed(app: App, project: Path) -> None:
    seen = app.service.events(0)
    sandbox = await create(app, project)
    await app.service.stop(sandbox.id)
    await app.service.delete(sandbox.id)
    assert (await anext(seen)).kind == "deleted"  # a deleted sandbox takes its events along


async def test_ids_prefixes_and_names(app: App, project: Path) -> None:
    service = app.service
    one = await create(app, project, name="same")
    with pytest.raises(Conflict, match="same"):
        await create(app, project, name="same")
    assert len(await service.list()) == 1
    assert (await service.get("same")).id == one.id
    assert (await service.get(one.id[:4])).id == one.id
    with pytest.raises(NotFound) as caught:
        await service.get("zzzzzz")
    assert "same" in caught.value.choices
    for nothing in ("", " ", "../" + one.id, one.id + "x"):
        with pytest.raises(NotFound):
            await service.get(nothing)
    others = [await create(app, project) for _ in range(3)]
    shared: dict[str, list[str]] = {}
    for made in [one, *others]:
        shared.setdefault(made.id[0], []).append(made.id)
    for letter, ids in shared.items():
        if len(ids) > 1:
            with pytest.raises(Ambiguous):
                await service.get(letter)
    await service.stop("same")
    with pytest.raises(Conflict):
        await create(app, project, name="same")
    await service.delete("same")
    await create(app, project, name="same")


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"backend": "docker"}, InvalidInput),
        ({"network": "host"}, Forbidden),
        ({"agent": "command"}, InvalidInput),
    ],
)
async def test_a_refused_create_leaves_no_trace(
    app: App, settings: Settings, project: Path, spec: dict[str, object], error: type[CsbError]
) -> None:
    with pytest.raises(error):
        await create(app, project, **spec)
    assert await app.service.list() == []
    left = {path.name for path in settings.runtime_dir.iterdir()} - {"launchers"}
    assert left == set()


async def test_bad_calls_are_refused_and_change_nothing(app: App, sandbox: Sandbox) -> None:
    service = app.service

    async def wait(**options: object) -> object:
        values: dict[str, object] = {
            "sandboxes": [sandbox.id],
            "until": [Exited()],
            "mode": "any",
            "timeout": 1,
            "cursor": {},
        }
        return await service.wait(**(values | options))  # pyright: ignore[reportArgumentType]

    async def keys(**options: object) -> object:
        values: dict[str, object] = {
            "text": None,
            "keys": [],
            "target": "terminal",
            "paste": False,
        }
        return await service.send_keys(sandbox.id, **(values | options))  # pyright: ignore[reportArgumentType]

    async def shot(region: Region) -> object:
        return await service.screenshot(
            sandbox.id, region=region, max_width=100, format="png", if_changed_since=None
        )

    async def command(text: str = "true", **options: object) -> object:
        return await run(app, sandbox, text, **options)

    await until(service, sandbox.id, TerminalRegex(r"\$$"))
    before = (await service.read_terminal(sandbox.id, cursor=None, lines=None)).rows
    for field, call in [
        ("timeout", wait(timeout=46)),
        ("timeout", wait(timeout=0)),
        ("until", wait(until=[])),
        ("sandboxes", wait(sandboxes=[])),
        ("mode", wait(mode="some")),
        ("until.terminal_regex", wait(until=[TerminalRegex("(")])),
        ("cursor", wait(cursor={sandbox.id: "x"})),
        ("keys", keys()),
        ("keys", keys(keys=["Entre"])),
        ("keys", keys(text="kept back", keys=["Enter", "C-Nope"])),
        ("target", keys(keys=["Enter"], target="window")),
        ("text", keys(text="nul\0")),
        ("text", keys(text="\x1b[31m")),
        ("text", keys(text="x" * (10 << 20))),
        ("region", shot(Region(0, 0, 1281, 1))),
        ("region", shot(Region(-1, 0, 5, 5))),
        ("region", shot(Region(0, 0, 0, 5))),
        ("lines", service.read_terminal(sandbox.id, cursor=None, lines=0)),
        ("cursor", service.read_terminal(sandbox.id, cursor="nonsense", lines=None)),
        ("timeout", command(timeout=0)),
        ("command", command("x" * (10 << 20))),
        ("command", command("nul\0")),
        ("cwd", command(cwd="/no/such/place")),
    ]:
        with pytest.raises(CsbError) as caught:
            await call
        assert caught.value.field == field, caught.value
    assert (await service.read_terminal(sandbox.id, cursor=None, lines=None)).rows == before


async def test_a_catastrophic_pattern_stops_nobody(app: App, sandbox: Sandbox) -> None:
    await typed(app.service, sandbox.id, "printf 'a%.0s' {1..100}; echo; echo e''nd", "end")
    began = time.monotonic()
    with pytest.raises(InvalidInput, match="too long"):
        await until(app.service, sandbox.id, TerminalRegex(r"(a|aa)+$b|(a+)+c"))
    assert time.monotonic() - began < 3


async def test_geometry_and_gl(app: App, project: Path) -> None:
    sandbox = await create(app, project, geometry=Geometry(640, 480))
    shot = await app.service.screenshot(
        sandbox.id, region=None, max_width=2000, format="webp", if_changed_since=None
    )
    assert shot.image is not None
    assert (shot.image.width, shot.image.height) == (640, 480)


async def test_a_home_that_was_made_unremovable_is_removed(
    app: App, settings: Settings, sandbox: Sandbox
) -> None:
    deep = "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')"
    rest = "mkdir -p l/k; touch l/k/f; chmod 0 l/k l; ln -s / slash"
    result = await run(app, sandbox, f'cd ~ && python3 -c "{deep}" && {rest}')
    assert result.exit_code == 0, result
    await app.service.delete(sandbox.id)
    assert not (settings.state_dir / "sandboxes" / sandbox.id).exists()
    assert Path("/usr").exists()


async def test_owner_of_what_is_made(app: App, sandbox: Sandbox, project: Path) -> None:
    await run(app, sandbox, "mkdir -p sub; echo x > sub/f")
    owner = (project.stat().st_uid, project.stat().st_gid)
    for path in (project / "sub", project / "sub/f"):
        assert (path.stat().st_uid, path.stat().st_gid) == owner
    assert os.access(project / "sub/f", os.R_OK)


async def test_the_keymap_is_the_real_one_and_can_be_changed(app: App, sandbox: Sandbox) -> None:
    """The X server's own is compiled beforehand; another layout goes through the real compiler."""
    show = "xkbcomp -w 0 $DISPLAY - | grep -A2 -m1 'key <AC11>'"
    assert "apostrophe" in (await run(app, sandbox, show)).stdout
    assert (await run(app, sandbox, f"setxkbmap de && {show}")).stdout.count("adiaeresis") == 1


async def test_the_attach_line_reaches_the_terminal(app: App, sandbox: Sandbox) -> None:
    *words, verb, _, session = sandbox.attach.split()
    assert (verb, session) == ("attach", "main")
    assert ("setpriv" in words) == (os.getuid() == 0)  # root is no client of a tmux it cannot trust
    asked = await asyncio.create_subprocess_exec(*words, "list-sessions", stdout=PIPE)
    shown, _ = await asked.communicate()
    assert shown.startswith(b"display: ")
