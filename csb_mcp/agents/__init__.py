"""What can live in a sandbox, one file each."""
