"""Which jobs give how much for how long, within what their tiers accept."""
