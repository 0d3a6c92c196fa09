"""csb-mcp: sandboxes for coding agents, as tools for the agent that supervises them."""

__version__ = "0.1.0"
