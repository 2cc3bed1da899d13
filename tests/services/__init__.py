"""Tests against real servers that they start themselves: `make test-services`."""
