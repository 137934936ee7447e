"""Measures how fast this machine makes pictures, and how near that is to the best that it could do."""
