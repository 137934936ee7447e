"""Architectures that Bottega tells apart and cannot run yet: one module a medium, each with its table `KNOWN`."""
