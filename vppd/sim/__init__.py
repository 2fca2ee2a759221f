"""A simulated site that speaks the real protocols."""
