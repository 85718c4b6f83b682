"""What the pipeline and the trainer agree on: names, bytes and geometry of a cache, and its readers."""
