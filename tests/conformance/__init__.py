"""transformers' own test suites, run over every class of decahub."""
