"""Whole data sets."""
