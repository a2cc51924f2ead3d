"""The synthetic benchmark: rendered scenes with exact truth."""
