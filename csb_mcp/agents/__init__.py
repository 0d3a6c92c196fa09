"""What can live in a sandbox: a folder or a file each; beside them what several of them need."""
