"""The files of a store: manifest, layers, readers, writers and page tokens."""
