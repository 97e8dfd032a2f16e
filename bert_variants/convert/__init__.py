"""Models in and out: Hugging Face directories and TensorFlow checkpoints, both ways.

``pretrained`` has what users call; ``families`` says what each family's files hold.
"""
