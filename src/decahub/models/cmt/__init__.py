"""CMT: 3D object detection from cameras, LiDAR, or both (arXiv 2301.01283)."""
