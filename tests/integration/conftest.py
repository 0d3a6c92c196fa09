from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from csb_mcp.app import App
from csb_mcp.config import Settings
from csb_mcp.model import Sandbox
from tests.support.sandboxes import (
    create,
    mentions,
    mounts_below,
    project_in,
    running_app,
    settings_in,
    short_folder,
)


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder for everything of one test; afterwards nothing runs or is mounted in it."""
    with short_folder() as path:
        yield path
        assert not mentions(str(path)), "processes are left"
        assert not mounts_below(path), "mounts are left"


@pytest.fixture
def settings(base: Path) -> Settings:
    return settings_in(base)


@pytest.fixture
def project(base: Path) -> Path:
    return project_in(base)


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[App]:
    async with running_app(settings) as app:
        yield app


@pytest.fixture
async def sandbox(app: App, project: Path) -> Sandbox:
    return await create(app, project)
