"""A processor for small generated scenes, and such a scene."""

from decahub.data.driving_scenes import SceneSettings, build_frame
from decahub.data.frames import decode_row
from decahub.models.cmt.feature_extraction_cmt import CmtPointCloudFeatureExtractor
from decahub.models.cmt.image_processing_cmt import CmtImageProcessor
from decahub.models.cmt.processing_cmt import CmtProcessor


RANGE = [-24.0, -20.0, -3.0, 24.0, 28.0, 3.0]
SETTINGS = SceneSettings(num_cameras=3, image_size=(40, 72), num_beams=8, num_azimuths=90, num_objects=(6, 9))


def build_processor(modality="fusion", size=(32, 64)):
    return CmtProcessor(
        CmtImageProcessor(size={"height": size[0], "width": size[1]}),
        CmtPointCloudFeatureExtractor(voxel_size=[1.0, 1.5, 0.5], point_cloud_range=RANGE, sparse_shape=None),
        modality=modality,
    )


def build_row(index=0):
    return build_frame((4, index), SETTINGS)


def build_decoded(index=0):
    return decode_row(build_row(index))
