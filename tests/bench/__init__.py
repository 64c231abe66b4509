"""Kept scripts that measure the project's own claims; each prints what it found. `python -m tests.bench.NAME --help`."""
