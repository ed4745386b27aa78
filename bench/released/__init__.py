"""Weights as published systems store them, one file per layout."""
