"""transformers' own suite over CMT's feature extractor."""

import unittest

from decahub import CmtPointCloudFeatureExtractor

from .harness import FeatureExtractorConformance


class CmtPointCloudFeatureExtractorTest(FeatureExtractorConformance, unittest.TestCase):
    feature_extraction_class = CmtPointCloudFeatureExtractor
    feat_extract_dict = {
        "voxel_size": [0.5, 0.4, 0.2],
        "point_cloud_range": [-10.0, -8.0, -3.0, 10.0, 8.0, 1.0],
        "sparse_shape": [21, 40, 40],
        "voxelization": "dynamic",
        "max_points_per_voxel": 7,
        "max_voxels": 50,
    }
