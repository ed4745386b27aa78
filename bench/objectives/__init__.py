"""Objectives that need an encoder and a projector, which know nothing of each other and so meet here."""
