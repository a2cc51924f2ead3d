"""Whole data sets explained and measured."""
