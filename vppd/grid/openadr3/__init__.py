"""OpenADR 3.1: the VEN, from the server's events to orders, tariffs and reports."""
