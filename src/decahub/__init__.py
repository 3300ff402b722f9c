"""Ten published research methods as transformers models.

Importing decahub is cheap: torch, transformers and the models are loaded when one of their names is asked for.
transformers' Auto classes and `pipeline` know every model all the same, whichever package is imported first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from decahub.registration import install as _install
from decahub.registry import METHODS, PUBLIC_NAMES, list_new_auto_classes


if TYPE_CHECKING:
    from decahub.data import load_dataset
    from decahub.metrics import load_metric
    from decahub.models.cmt.camera.vovnet import CmtVovNetBackbone
    from decahub.models.cmt.configuration_cmt import CmtConfig, CmtLidarConfig, CmtVovNetConfig
    from decahub.models.cmt.feature_extraction_cmt import CmtPointCloudFeatureExtractor
    from decahub.models.cmt.image_processing_cmt import CmtImageProcessor
    from decahub.models.cmt.modeling_cmt import CmtForObjectDetection3D, CmtModel
    from decahub.models.cmt.processing_cmt import CmtProcessor
    from decahub.models.cmt.sensor_failures import CmtSensorDropout
    from decahub.models.doorping.configuration_alexnet import AlexNetConfig
    from decahub.models.doorping.configuration_convnet import ConvNetConfig
    from decahub.models.doorping.configuration_doorping import DoorpingConfig
    from decahub.models.doorping.configuration_transfer_net import TransferNetConfig
    from decahub.models.doorping.image_processing_doorping import DoorpingImageProcessor
    from decahub.models.doorping.image_processing_pil_doorping import DoorpingImageProcessorPil
    from decahub.models.doorping.modeling_alexnet import AlexNetForImageClassification
    from decahub.models.doorping.modeling_convnet import ConvNetForImageClassification
    from decahub.models.doorping.modeling_doorping import DistilledDataset
    from decahub.models.doorping.modeling_transfer_net import TransferNetForImageClassification
    from decahub.models.drum_lm.configuration_drum_lm import DrumLmConfig
    from decahub.models.drum_lm.midi.performance import DrumPerformance
    from decahub.models.drum_lm.modeling_drum_lm import DrumLmForCausalLM
    from decahub.models.drum_lm.processing_drum_lm import DrumLmProcessor
    from decahub.models.emo.configuration_emo import EmoConfig
    from decahub.models.emo.image_processing_emo import EmoImageProcessor
    from decahub.models.emo.image_processing_pil_emo import EmoImageProcessorPil
    from decahub.models.emo.modeling_emo import (
        EmoBackbone,
        EmoForImageClassification,
        EmoForSemanticSegmentation,
        EmoModel,
    )
    from decahub.models.mpd_subtyping.configuration_mpd_subtyping import MpdSubtypingConfig
    from decahub.models.mpd_subtyping.feature_extraction_mpd_subtyping import MpdSubtypingFeatureExtractor
    from decahub.models.mpd_subtyping.modeling_mpd_subtyping import MpdSubtypingModel
    from decahub.models.pmt_iqa.configuration_pmt_iqa import PmtIqaConfig
    from decahub.models.pmt_iqa.image_processing_pil_pmt_iqa import PmtIqaImageProcessorPil
    from decahub.models.pmt_iqa.image_processing_pmt_iqa import PmtIqaImageProcessor
    from decahub.models.pmt_iqa.levels import QualityLevelBinner
    from decahub.models.pmt_iqa.modeling_pmt_iqa import PmtIqaForImageQualityAssessment, PmtIqaModel
    from decahub.models.pmt_iqa.weighting import ProgressiveTaskCallback
    from decahub.models.raw_gnn.configuration_raw_gnn import RawGnnConfig
    from decahub.models.raw_gnn.feature_extraction_raw_gnn import RawGnnFeatureExtractor
    from decahub.models.raw_gnn.modeling_raw_gnn import RawGnnForNodeClassification, RawGnnModel
    from decahub.models.reft.configuration_reft import RefTConfig
    from decahub.models.reft.image_processing_reft import RefTImageProcessor
    from decahub.models.reft.modeling_reft import RefTForFewShotInstanceSegmentation, RefTModel
    from decahub.models.reft.processing_reft import RefTProcessor
    from decahub.models.reft.support.memory import RefTSupportMemory
    from decahub.models.reliant.configuration_reliant import ReliantConfig
    from decahub.models.reliant.feature_extraction_reliant import ReliantFeatureExtractor
    from decahub.models.reliant.modeling_reliant import ReliantForNodeClassification, ReliantModel
    from decahub.models.tinymim.configuration_tinymim import TinyMimConfig
    from decahub.models.tinymim.image_processing_pil_tinymim import TinyMimImageProcessorPil
    from decahub.models.tinymim.image_processing_tinymim import TinyMimImageProcessor
    from decahub.models.tinymim.modeling_tinymim import (
        TinyMimBackbone,
        TinyMimForImageClassification,
        TinyMimForPreTraining,
        TinyMimForSemanticSegmentation,
        TinyMimModel,
    )
    from decahub.models.tinymim.teacher import TinyMimTeacher
    from decahub.pipelines.drum_generation import DrumGenerationPipeline
    from decahub.pipelines.few_shot_instance_segmentation import FewShotInstanceSegmentationPipeline
    from decahub.pipelines.image_quality_assessment import ImageQualityAssessmentPipeline
    from decahub.pipelines.node_classification import NodeClassificationPipeline
    from decahub.pipelines.object_detection_3d import ObjectDetection3DPipeline
    from decahub.pipelines.patient_subtyping import PatientSubtypingPipeline

__version__ = "0.1.0"

_install()


def __getattr__(name: str) -> Any:
    if name not in PUBLIC_NAMES:
        from difflib import get_close_matches

        nearest = get_close_matches(name, PUBLIC_NAMES, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{hint}")
    value = getattr(import_module(PUBLIC_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC_NAMES})


__all__ = [
    "METHODS",
    "AlexNetConfig",
    "AlexNetForImageClassification",
    "CmtConfig",
    "CmtForObjectDetection3D",
    "CmtImageProcessor",
    "CmtLidarConfig",
    "CmtModel",
    "CmtPointCloudFeatureExtractor",
    "CmtProcessor",
    "CmtSensorDropout",
    "CmtVovNetBackbone",
    "CmtVovNetConfig",
    "ConvNetConfig",
    "ConvNetForImageClassification",
    "DistilledDataset",
    "DoorpingConfig",
    "DoorpingImageProcessor",
    "DoorpingImageProcessorPil",
    "DrumGenerationPipeline",
    "DrumLmConfig",
    "DrumLmForCausalLM",
    "DrumLmProcessor",
    "DrumPerformance",
    "EmoBackbone",
    "EmoConfig",
    "EmoForImageClassification",
    "EmoForSemanticSegmentation",
    "EmoImageProcessor",
    "EmoImageProcessorPil",
    "EmoModel",
    "ImageQualityAssessmentPipeline",
    "FewShotInstanceSegmentationPipeline",
    "MpdSubtypingConfig",
    "MpdSubtypingFeatureExtractor",
    "MpdSubtypingModel",
    "NodeClassificationPipeline",
    "ObjectDetection3DPipeline",
    "PatientSubtypingPipeline",
    "PmtIqaConfig",
    "PmtIqaForImageQualityAssessment",
    "PmtIqaImageProcessor",
    "PmtIqaImageProcessorPil",
    "PmtIqaModel",
    "ProgressiveTaskCallback",
    "QualityLevelBinner",
    "RawGnnConfig",
    "RawGnnFeatureExtractor",
    "RawGnnForNodeClassification",
    "RawGnnModel",
    "RefTConfig",
    "RefTForFewShotInstanceSegmentation",
    "RefTImageProcessor",
    "RefTModel",
    "RefTProcessor",
    "RefTSupportMemory",
    "ReliantConfig",
    "ReliantFeatureExtractor",
    "ReliantForNodeClassification",
    "ReliantModel",
    "TinyMimBackbone",
    "TinyMimConfig",
    "TinyMimForImageClassification",
    "TinyMimForPreTraining",
    "TinyMimForSemanticSegmentation",
    "TinyMimImageProcessor",
    "TinyMimImageProcessorPil",
    "TinyMimModel",
    "TinyMimTeacher",
    "TransferNetConfig",
    "TransferNetForImageClassification",
    "__version__",
    "load_dataset",
    "load_metric",
    *list_new_auto_classes(),
]
