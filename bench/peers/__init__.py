"""What is measured beside one another: each peer runs in a worker process of its own, under its own Python."""
