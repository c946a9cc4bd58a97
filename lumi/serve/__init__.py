"""What a trained model is used through: a terminal and a server."""
