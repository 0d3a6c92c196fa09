"""Faces: each translates one protocol to the service."""
