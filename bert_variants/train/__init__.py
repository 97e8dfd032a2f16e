"""Pretraining and evaluation: state, step, optimizer, sharding, checkpoints and the only loop."""
