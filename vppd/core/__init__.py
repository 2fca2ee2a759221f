"""Pure decisions: arrays and frozen values in, the same out."""
