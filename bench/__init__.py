"""Everything that runs: configuration, training, generation, the command line."""
