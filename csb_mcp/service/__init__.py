"""The one service behind every face."""
