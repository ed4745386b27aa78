"""What is measured, each by a module that runs alone; nothing here is part of the package or of `make test`."""
