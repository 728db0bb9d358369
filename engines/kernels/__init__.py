"""The kernels that travel inside engines: their sources, ahead-of-time compilation, tuning tables and launch plans."""
