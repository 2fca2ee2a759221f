"""A local market on MQTT that clears offers, for the demo and for tests."""
