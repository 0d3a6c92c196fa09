"""Leaves on the standard library that know nothing of csb-mcp."""
