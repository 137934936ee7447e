"""Everything that was made: an index of outputs with their recipes, and what came from what."""
