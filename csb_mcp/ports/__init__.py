"""The contracts between the rooms. Implementations are terse; what they owe is written here.

Everything is asynchronous unless it is a plain look at memory. Every wait has a deadline. All
methods may raise :class:`~csb_mcp.errors.CsbError` subclasses only; anything else is a defect.
"""

from csb_mcp.ports.agent import Agent, Program, Seed, Stroke, Transcripts
from csb_mcp.ports.backend import Backend, Helper
from csb_mcp.ports.display import Display, Displays
from csb_mcp.ports.egress import ClientOf, Gate, Gates, WayOut
from csb_mcp.ports.limits import Enclosure, Limiter, Meter
from csb_mcp.ports.service import SandboxService
from csb_mcp.ports.storage import Keeper, Spool, Spools, Store, Watcher
from csb_mcp.ports.terminal import Terminal, Terminals
from csb_mcp.ports.verification import Prober

__all__ = [
    "Agent",
    "Backend",
    "ClientOf",
    "Display",
    "Displays",
    "Enclosure",
    "Gate",
    "Gates",
    "Helper",
    "Keeper",
    "Limiter",
    "Meter",
    "Prober",
    "Program",
    "SandboxService",
    "Seed",
    "Spool",
    "Spools",
    "Store",
    "Stroke",
    "Terminal",
    "Terminals",
    "Transcripts",
    "Watcher",
    "WayOut",
]
