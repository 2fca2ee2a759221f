"""Fakes, cycle tables and the adapter conformance suite."""
