"""What runs on the workers of a cluster: client configuration as plain data, and lookups there."""
