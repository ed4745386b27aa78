"""Metrics, and the protocols that say how a prediction becomes a number."""
