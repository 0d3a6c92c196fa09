"""Terminals: tmux in control mode."""
