"""Profile sources: one module per vendor, all implementing the `ProfileSource` protocol."""
