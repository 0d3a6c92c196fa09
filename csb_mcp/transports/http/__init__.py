"""The HTTP face: REST, live logs and events, numbers for Prometheus."""
