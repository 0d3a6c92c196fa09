"""The egress proxy: a program of its own beside each sandbox that may reach a few hosts."""
