"""Endpoints of the embedded Profile API, one module each."""
