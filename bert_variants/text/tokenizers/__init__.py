"""Tokenizers, one kind a file, behind the interface of ``text/tokenizer.py``."""
