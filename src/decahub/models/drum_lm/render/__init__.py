"""Grooves as plots and as sound."""
