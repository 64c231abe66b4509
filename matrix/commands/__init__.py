"""The commands by what they do: measure, judge, sign. `matrix.cli` puts them together."""
