"""The lookup core: single flight, batching, retries, circuit breaker and rate limits around one source."""
