"""Tests that use real things: processes, frameworks, a browser. Slow ones live here, never a timed one."""
