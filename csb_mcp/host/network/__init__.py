"""The ways out of a sandbox."""
