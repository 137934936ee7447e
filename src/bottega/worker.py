"""The process that does what a server gives it: `python -m bottega.worker`."""
