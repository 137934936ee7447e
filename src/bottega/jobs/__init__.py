"""Where and when work is done: the queue that loses nothing, and the foreman who has workers do what is in it."""
