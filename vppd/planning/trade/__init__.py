"""What is sold: gates, offers, awards, and whether the sold power is there."""
