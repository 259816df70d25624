"""Adapters: the only files that import third-party environments, each lazily, one source a file."""
