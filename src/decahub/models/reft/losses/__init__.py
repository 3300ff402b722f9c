"""Losses: masks and classes of matched object queries, and distillation."""
