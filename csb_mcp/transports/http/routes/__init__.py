"""All routes of the face, in the order in which they are documented."""

from csb_mcp.transports.http.route import Route
from csb_mcp.transports.http.routes import (
    display,
    egress,
    host,
    lifecycle,
    logs,
    supervision,
    terminal,
)

ROUTES: tuple[Route, ...] = (
    *lifecycle.ROUTES,
    *terminal.ROUTES,
    *supervision.ROUTES,
    *display.ROUTES,
    *egress.ROUTES,
    *logs.ROUTES,
    *host.ROUTES,
)
