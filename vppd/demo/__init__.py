"""The trial run: a simulated site, the real daemon, a dispatcher with a script, and a view of it all."""
