"""A web page filled in, by tools alone, as a supervising agent does it: look, point, type."""

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp_types import ImageContent, TextContent
from PIL import Image

from tests.integration.test_mcp_life import Station, call, station
from tests.support.sandboxes import project_in

pytestmark = pytest.mark.once

__all__ = ["station"]

TEXT = 'aB~é中😀ß{}|"日本'
MARK = (255, 0, 255)
PAGE = """<!doctype html><meta charset=utf-8><title>form</title>
<style>
body { margin: 0; background: rgb(40, 60, 80) }
body > * { position: absolute; box-sizing: border-box; margin: 0 }
</style>
<div style="left:0; top:0; width:8px; height:8px; background:rgb(255,0,255)"></div>
<input id=text style="left:50px; top:50px; width:300px; height:30px">
<input id=range type=range min=0 max=100 value=0 style="left:50px; top:100px; width:300px">
<select id=choice style="left:50px; top:150px; width:300px; height:30px">
<option>one<option>two<option>three</select>
<div id=box style="left:400px; top:50px; width:200px; height:200px; overflow:scroll">
<div style="height:3000px; background:linear-gradient(red, blue)"></div></div>
<button id=send style="left:50px; top:220px; width:120px; height:40px">send</button>
<script>
const get = id => document.getElementById(id)
get("send").onclick = () => fetch("/report", {method: "POST", body: JSON.stringify({
    text: get("text").value, range: Number(get("range").value),
    choice: get("choice").value, scrolled: get("box").scrollTop })})
</script>"""
SERVER = """
import http.server
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        open("report.json", "wb").write(data)
        self.send_response(204)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


class Hand:
    """Points at places of the page, wherever its window is."""

    def __init__(self, client: Client, sandbox: str) -> None:
        self.client = client
        self.sandbox = sandbox
        self.origin = (0, 0)
        self.size = (0, 0)

    async def look(self, **options: Any) -> tuple[Image.Image, str]:
        """The display as a picture, and its frame."""
        result = await self.client.call_tool("screenshot", {"sandbox": self.sandbox} | options)
        assert not result.is_error
        image = next(b for b in result.content if isinstance(b, ImageContent))
        caption = next(b.text for b in result.content if isinstance(b, TextContent))
        picture = Image.open(io.BytesIO(base64.b64decode(image.data))).convert("RGB")
        return picture, caption.removeprefix("frame ").partition(":")[0]

    async def find(self) -> None:
        """Wait for the page, and find its top left corner by the mark there."""
        async with asyncio.timeout(60):
            while True:
                picture, frame = await self.look()
                if place := corner(picture):
                    self.origin, self.size = place, picture.size
                    return
                await call(
                    self.client,
                    "wait",
                    sandboxes=[self.sandbox],
                    until=[{"screen_changed": frame}],
                    timeout=10,
                )

    def at(self, x: int, y: int) -> dict[str, int]:
        return {"x": self.origin[0] + x, "y": self.origin[1] + y}

    async def do(self, tool: str, **arguments: Any) -> None:
        answer = await call(self.client, tool, sandbox=self.sandbox, **arguments)
        assert "frame" in json.dumps(answer, default=str)


def corner(picture: Image.Image) -> tuple[int, int] | None:
    width, height = picture.size
    pixels = picture.tobytes()
    at = pixels.find(bytes(MARK * 4))
    if at < 0 or at % 3:
        return None
    x, y = at // 3 % width, at // 3 // width
    return (x, y) if y < height else None


@pytest.mark.timeout(180)
async def test_a_form_is_filled_and_sent(station: Station, base: Path) -> None:
    project = project_in(base)
    (project / "index.html").write_text(PAGE)
    (project / "server.py").write_text(SERVER)
    async with station.client() as client:
        await call(client, "create_sandbox", project_dir=str(project), agent="shell", name="form")
        for command in ("python3 server.py", "chromium http://127.0.0.1:8000/"):
            await call(client, "run_command", sandbox="form", command=command, background=True)
            if "server" in command:
                await call(client, "wait", sandboxes="form", until=[{"port": 8000}])
        hand = Hand(client, "form")
        await hand.find()
        await hand.do("click", **hand.at(100, 65))
        await hand.do("type_text", text=TEXT)
        start, end = hand.at(58, 110), hand.at(280, 110)
        await hand.do("drag", path=[[start["x"], start["y"]], [end["x"], end["y"]]])
        await hand.do("scroll", **hand.at(500, 150), dy=3)
        # Chromium takes no Return in a menu that was opened while it still rolls to a stand.
        await call(client, "wait", sandboxes="form", until=[{"screen_stable": 2}], timeout=20)
        await hand.do("click", **hand.at(150, 165))
        await call(client, "wait", sandboxes="form", until=[{"screen_stable": 0.5}], timeout=10)
        await call(
            client, "send_keys", sandbox="form", keys=["Down", "Down", "Return"], target="display"
        )
        await call(client, "wait", sandboxes="form", until=[{"screen_stable": 0.5}], timeout=10)
        # The last click by a place on a smaller picture of a part of the display.
        x, y = hand.at(0, 200)["x"], hand.at(0, 200)["y"]
        picture, frame = await hand.look(region=[x, y, 400, 100], max_width=200)
        assert picture.size == (200, 50)
        await hand.do("click", x=55, y=20, frame=frame)
        await call(client, "wait", sandboxes="form", until=[{"file": "report.json"}], timeout=20)
        await call(client, "screenshot", sandbox="form")
    async with asyncio.timeout(10):
        while not (text := (project / "report.json").read_text()):
            await asyncio.sleep(0.01)
    report = json.loads(text)
    assert report["text"] == TEXT
    assert 60 <= report["range"] <= 95
    assert report["choice"] == "three"
    assert report["scrolled"] > 50
