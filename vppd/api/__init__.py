"""HTTP API, metrics and health."""
