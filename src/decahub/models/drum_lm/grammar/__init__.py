"""The language of grooves, and the constraint that keeps a model within it."""
