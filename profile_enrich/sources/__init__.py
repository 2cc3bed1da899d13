"""Where profiles come from: one module a vendor, all behind the `ProfileSource` protocol."""
