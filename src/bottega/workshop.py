"""What a server of one home is made of: models, queue, workers and gallery, composed without torch."""
