"""LiDAR branch of CMT: voxels, sparse 3D convolutions, and a 2D network on the bird's-eye view."""
