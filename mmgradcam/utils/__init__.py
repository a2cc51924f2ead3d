"""Helpers without knowledge of models: files, numbers, threads."""
