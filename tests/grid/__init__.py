"""Tests of the dispatch interface."""
