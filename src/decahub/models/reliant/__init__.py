"""RELIANT: fair knowledge distillation for graph networks (arXiv 2301.01150)."""
