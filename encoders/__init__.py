"""Molecules as representations: encoders, the features they read, and the store that keeps them."""
