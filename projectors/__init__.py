"""Representations as soft tokens of a language model."""
