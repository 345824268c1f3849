"""Training: config, state, step, loop, checkpoints and what people look at."""
