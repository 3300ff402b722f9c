"""Boxes in 3D: geometry, coding, denoising queries and losses."""
