"""Attacks on a real `serve`, too long for the test suite: `python -m tests.server.attack` (`make attack`)."""
