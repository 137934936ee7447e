"""The doors over HTTP: the native API, and those that existing clients speak."""
