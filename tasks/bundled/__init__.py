"""The small embedded data set, made by molgraft itself: `make` builds the molecules, `describe` says what they are."""
