"""Drum LM: a language model that continues drum grooves written as text (arXiv 2301.01162)."""
