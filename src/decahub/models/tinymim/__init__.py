"""TinyMIM: small vision transformers that imitate the token relations of large ones (arXiv 2301.01296)."""
