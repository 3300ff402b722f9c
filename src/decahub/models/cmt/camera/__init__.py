"""The camera branch of CMT: backbone, neck, and the geometry of its images."""
