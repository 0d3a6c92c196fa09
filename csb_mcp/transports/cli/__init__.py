"""The command line: every verb a small client of REST on the daemon's own socket."""
