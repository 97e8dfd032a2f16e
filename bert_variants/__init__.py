"""Every BERT variant in JAX/Flax: BERT plus the few lines its paper changed."""

__version__ = "0.1.0"
