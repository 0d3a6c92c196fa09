"""The desktop of a real sandbox, with a page in Chromium that tells what reached it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csb_mcp.app import App
from csb_mcp.model import (
    DEFAULT_GEOMETRY,
    BackgroundCommand,
    CommandResult,
    Point,
    Sandbox,
    SandboxSpec,
)
from csb_mcp.ports import Display
from csb_mcp.service.manager import Manager

DEADLINE = 40.0
SERVER = """
import http.server, os
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_POST(self):
        told = self.rfile.read(int(self.headers["Content-Length"]))
        with open("report.new", "wb") as file:
            file.write(told)
        os.rename("report.new", "report.json")
        self.send_response(204)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""
PAGE = """<!doctype html><meta charset=utf-8><title>page</title>
<style>body{margin:0} body>*{position:absolute;left:20px;font-size:20px}</style>
<input id=line style="top:10px;width:600px">
<textarea id=area style="top:60px;width:600px;height:80px"></textarea>
<input id=slider type=range min=0 max=100 value=0 style="top:160px;width:400px">
<select id=menu style="top:200px"><option>one<option>two<option>three</select>
<p id=word style="top:240px;margin:0">double</p>
<button id=button style="top:280px" onclick="clicks++">push</button>
<div style="top:3000px">end</div>
<script>
const get = id => document.getElementById(id), fields = ['line', 'area', 'slider', 'menu'];
let clicks = 0, origin = null, keys = [], mouse = [], last = '';
addEventListener('keydown', e => keys.push(e.key));
for (const kind of ['mousedown', 'mouseup', 'dblclick', 'contextmenu'])
  addEventListener(kind, e => mouse.push(kind + e.button));
addEventListener('mousemove', e => origin = [e.screenX - e.clientX, e.screenY - e.clientY]);
addEventListener('contextmenu', e => e.preventDefault());
const place = id => {
  const box = get(id).getBoundingClientRect();
  return [box.left, box.top, box.width, box.height];
};
setInterval(() => {
  const told = {clicks, origin, keys, mouse, x: scrollX, y: scrollY,
    selected: String(getSelection()), focus: document.hasFocus(), size: [innerWidth, innerHeight],
    values: Object.fromEntries(fields.map(id => [id, get(id).value])),
    places: Object.fromEntries([...fields, 'word', 'button'].map(id => [id, place(id)]))};
  const text = JSON.stringify(told);
  if (text != last) fetch('/', {method: 'POST', body: text});
  last = text;
}, 50);
</script>
"""


@dataclass(frozen=True, slots=True)
class Desktop:
    """A sandbox, as one who sits before its screen has it."""

    service: Manager
    sandbox: Sandbox
    display: Display
    project: Path

    async def start(self, command: str) -> None:
        """Run a program beside the terminal."""
        run = await self.service.run_command(
            self.sandbox.id, command, timeout=5, cwd=None, stdin=None, background=True
        )
        assert isinstance(run, BackgroundCommand)

    async def run(self, command: str) -> str:
        """What a short program prints."""
        run = await self.service.run_command(
            self.sandbox.id, command, timeout=20, cwd=None, stdin=None, background=False
        )
        assert isinstance(run, CommandResult)
        return run.stdout

    async def browse(self, options: str = "") -> None:
        """Show the page; afterwards the pointer is over it."""
        (self.project / "page.html").write_text(PAGE)
        (self.project / "server.py").write_text(SERVER)
        await self.start("python3 server.py")
        await self.start(f"chromium {options} http://127.0.0.1:8000/page.html")
        await self.until(lambda told: told["focus"])
        # It lies somewhere in the window; where, an event of the mouse tells.
        async with asyncio.timeout(DEADLINE):
            while self.told()["origin"] is None:
                for x in (640, 660):
                    await self.display.click(Point(x, 600), button="right", count=1)
                await asyncio.sleep(0.2)

    def told(self) -> dict[str, Any]:
        """What the page told last."""
        try:
            return json.loads((self.project / "report.json").read_text())
        except FileNotFoundError:
            return {"focus": False, "origin": None, "values": {}}

    async def until(self, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until it holds of what the page tells."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not true(told := self.told()):
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"the page told: {self.told()}") from None
        return told

    def place(self, element: str, across: float = 0.5) -> Point:
        """Where an element is on the screen: its middle, or so far across."""
        told = self.told()
        left, top, width, height = told["places"][element]
        x, y = told["origin"]
        return Point(round(x + left + width * across), round(y + top + height / 2))


@asynccontextmanager
async def desktop(app: App, project: Path, **spec: Any) -> AsyncGenerator[Desktop]:
    """The desktop of a new sandbox."""
    made = await app.service.create(SandboxSpec(project_dir=project, **spec))
    folders = app.pieces.keeper.folders(made.id)
    deadline = asyncio.get_running_loop().time() + DEADLINE
    display = await app.pieces.displays.connect(folders, DEFAULT_GEOMETRY, deadline)
    try:
        yield Desktop(app.service, made, display, project)
    finally:
        await display.close()
