"""Where and when: a queue that loses nothing, and the worker processes that do what it says."""
