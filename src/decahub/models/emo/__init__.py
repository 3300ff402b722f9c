"""EMO (arXiv 2301.01146): a small image backbone. See README.md beside this file."""
