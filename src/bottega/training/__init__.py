"""Training: one loop that teaches adapters and whole models; a family lends it what it knows of its networks."""
