"""Attacks on sandboxes of our own."""
