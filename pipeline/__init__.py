"""The pipeline: `python -m pipeline` cuts views, runs teachers over them, and looks after the cache they make."""
