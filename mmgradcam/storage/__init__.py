"""Saved explanations: written, checked and read back."""
