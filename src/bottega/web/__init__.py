"""The page: one shell and a file for each room; it talks only to the public API."""
