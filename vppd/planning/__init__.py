"""Ahead of the present: what is foreseen, planned and sold."""
