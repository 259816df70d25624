"""Benchmarks: measurements with their commands; never run by the tests."""
