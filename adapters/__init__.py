"""Device adapters, one module per product family, found by entry point."""
