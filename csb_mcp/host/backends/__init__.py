"""Ways to isolate."""
