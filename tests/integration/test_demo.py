"""The README's first command, but for the set-up before it."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.sandboxes import mentions

DEMO = Path(__file__).parents[2] / "scripts/demo.py"
PAGE = (0x0B, 0x3D, 0x2E)  # background of the page that the story makes


@pytest.mark.timeout(180)
def test_the_story_comes_to_its_end_and_leaves_only_the_picture(short_dir: Path) -> None:
    picture = short_dir / "demo.png"
    done = subprocess.run(
        [sys.executable, str(DEMO), str(picture)],
        env={"HOME": str(short_dir), "PATH": "/usr/bin:/bin"},
        cwd=short_dir,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "JavaScript" not in done.stdout  # that is on the picture, not in the terminal
    assert f"Nothing is left but the picture: {picture}" in done.stdout
    with Image.open(picture) as image:
        pixels = image.convert("RGB")
        assert pixels.getpixel((image.width // 2, image.height * 3 // 4)) == PAGE
    base = done.stdout.partition("/dev/shm/csb-demo-")[2].partition("/")[0]
    assert base
    assert not mentions(f"csb-demo-{base}")
    assert not Path(f"/dev/shm/csb-demo-{base}").exists()
