"""The project's tests. Each test is a claim; its name and docstring state it."""
