"""Drawings of 3D boxes: on the images, from above, and all on one sheet."""
