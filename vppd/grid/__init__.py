"""The dispatch interface: one codec per protocol, all to the one Order."""
