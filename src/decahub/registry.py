"""The tables of methods and tasks. Plain data: importing it imports no library.

Classes are listed by name; `PUBLIC_NAMES` says which module defines each.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelEntry:
    """One `model_type` of a method and the classes that belong to it, by name.

    Args:
        model_type (`str`): as in `config.json`.
        config (`str`): class of the configuration.
        auto_classes (`dict[str, str]`): Auto class, of transformers or of `decahub.auto`, to model class.
        image_processors (`dict[str, str]`): backend ("torchvision", "pil") to class; empty if there is none.
        feature_extractor (`str`, *optional*): class for a single input that is no image.
        processor (`str`, *optional*): class of a processor of several parts.
        file_stem (`str`, *optional*): how the names of the contract files end, where not with the method's name:
            `modeling_<file_stem>.py`. For a method with several model types.
        further_classes (`dict[str, str]`): further public classes to their file in the room, such as `teacher`.
    """

    model_type: str
    config: str
    auto_classes: dict[str, str]
    image_processors: dict[str, str] = field(default_factory=dict)
    feature_extractor: str | None = None
    processor: str | None = None
    file_stem: str | None = None
    further_classes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Citation:
    """Who published a paper, when and where.

    Args:
        authors (`str`): as BibTeX has them, "Given Family and Given Family"; "and others" after those that are known.
        year (`int`): of the publication.
        venue (`str`, *optional*): conference or journal; unset for a paper that is on arXiv only.
    """

    authors: str
    year: int
    venue: str | None = None


@dataclass(frozen=True)
class Method:
    """A published method.

    Args:
        name (`str`): folder in `decahub/models/` and name of the extra.
        title (`str`): of the paper.
        arxiv (`str`, *optional*): number of the paper, for example "2301.01146".
        summary (`str`): what a user does with it, in one line.
        tasks (`tuple[str, ...]`): keys of `TASKS`, the main one first.
        extra (`str`): what to install: `pip install "decahub[<extra>]"`.
        models (`tuple[ModelEntry, ...]`): empty while the method is planned.
        doi (`str`, *optional*): of a paper that is not on arXiv.
        citation ([`Citation`], *optional*): of the paper.
    """

    name: str
    title: str
    arxiv: str | None
    summary: str
    tasks: tuple[str, ...]
    extra: str
    models: tuple[ModelEntry, ...] = ()
    doi: str | None = None
    citation: Citation | None = None

    @property
    def is_ready(self) -> bool:
        """Whether its models can be used."""
        return bool(self.models)

    @property
    def paper_url(self) -> str:
        """Address of the paper."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else f"https://doi.org/{self.doi}"


@dataclass(frozen=True)
class TaskEntry:
    """A task: what is predicted, measured and shown. `decahub/tasks/<module>.py` holds its code.

    Args:
        name (`str`): as evaluations, recipes and `Method.tasks` name it.
        family (`str`): kind of its data: the module `decahub.data.<family>`, with `-` read as `_`.
        metric (`str`): name for `decahub.load_metric`.
        auto_class (`str`): Auto class that loads its models.
        processor (`str`): which part prepares its inputs: "image_processor", "feature_extractor" or "processor".
        module (`str`): of `decahub.tasks`; also of `decahub.pipelines` where the task has a pipeline of ours.
        pipeline (`str`, *optional*): class of the pipeline, for a task that transformers has none for.
        is_new (`bool`): whether `decahub.auto` defines `auto_class`, because transformers does not.
        hub_tag (`str`, *optional*): `pipeline_tag` of its models on the Hub, which promises that transformers'
            pipeline of that name accepts them.
        tags (`tuple[str, ...]`): under which models without such a pipeline are found, the name of the task first.
    """

    name: str
    family: str
    metric: str
    auto_class: str
    processor: str
    module: str
    pipeline: str | None = None
    is_new: bool = False
    hub_tag: str | None = None
    tags: tuple[str, ...] = ()


_DOORPING_IMAGE_PROCESSORS = {  # of all model types of the method, in files without their stems
    "DoorpingImageProcessor": "image_processing_doorping",
    "DoorpingImageProcessorPil": "image_processing_pil_doorping",
}

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="emo",
            title="Rethinking Mobile Block for Efficient Attention-based Models",
            arxiv="2301.01146",
            summary="A small, fast image backbone for classification and dense prediction.",
            tasks=("image-classification", "semantic-segmentation", "image-feature-extraction"),
            extra="emo",
            citation=Citation(
                "Jiangning Zhang and Xiangtai Li and Jian Li and Liang Liu and Zhucun Xue and Boshen "
                "Zhang and Zhengkai Jiang and Tianxin Huang and Yabiao Wang and Chengjie Wang",
                2023,
                "ICCV 2023",
            ),
            models=(
                ModelEntry(
                    model_type="emo",
                    config="EmoConfig",
                    auto_classes={
                        "AutoModel": "EmoModel",
                        "AutoBackbone": "EmoBackbone",
                        "AutoModelForImageClassification": "EmoForImageClassification",
                        "AutoModelForSemanticSegmentation": "EmoForSemanticSegmentation",
                    },
                    image_processors={"torchvision": "EmoImageProcessor", "pil": "EmoImageProcessorPil"},
                ),
            ),
        ),
        Method(
            name="tinymim",
            title="TinyMIM: An Empirical Study of Distilling MIM Pre-trained Models",
            arxiv="2301.01296",
            summary="Distills a vision transformer pre-trained by masked image modeling into a small one.",
            tasks=("image-classification", "semantic-segmentation", "image-feature-extraction"),
            extra="tinymim",
            citation=Citation(
                "Sucheng Ren and Fangyun Wei and Zheng Zhang and Han Hu",
                2023,
                "CVPR 2023",
            ),
            models=(
                ModelEntry(
                    model_type="tinymim",
                    config="TinyMimConfig",
                    auto_classes={
                        "AutoModel": "TinyMimModel",
                        "AutoBackbone": "TinyMimBackbone",
                        "AutoModelForPreTraining": "TinyMimForPreTraining",
                        "AutoModelForImageClassification": "TinyMimForImageClassification",
                        "AutoModelForSemanticSegmentation": "TinyMimForSemanticSegmentation",
                    },
                    image_processors={"torchvision": "TinyMimImageProcessor", "pil": "TinyMimImageProcessorPil"},
                    further_classes={"TinyMimTeacher": "teacher"},
                ),
            ),
        ),
        Method(
            name="cmt",
            title="Cross Modal Transformer: Towards Fast and Robust 3D Object Detection",
            arxiv="2301.01283",
            summary="Finds 3D boxes from cameras, LiDAR, or both.",
            tasks=("object-detection-3d",),
            extra="cmt",
            citation=Citation(
                "Junjie Yan and Yingfei Liu and Jianjian Sun and Fan Jia and Shuailin Li and Tiancai Wang "
                "and Xiangyu Zhang",
                2023,
                "ICCV 2023",
            ),
            models=(
                ModelEntry(
                    model_type="cmt",
                    config="CmtConfig",
                    auto_classes={
                        "AutoModel": "CmtModel",
                        "AutoModelForObjectDetection3D": "CmtForObjectDetection3D",
                    },
                    image_processors={"torchvision": "CmtImageProcessor"},
                    feature_extractor="CmtPointCloudFeatureExtractor",
                    processor="CmtProcessor",
                    further_classes={"CmtSensorDropout": "sensor_failures"},
                ),
                ModelEntry(
                    model_type="cmt_vovnet",
                    config="CmtVovNetConfig",
                    auto_classes={"AutoBackbone": "CmtVovNetBackbone"},
                    further_classes={"CmtVovNetBackbone": "camera.vovnet"},
                ),
                ModelEntry(model_type="cmt_lidar", config="CmtLidarConfig", auto_classes={}),
            ),
        ),
        Method(
            name="reft",
            title="Reference Twice: A Simple and Unified Baseline for Few-Shot Instance Segmentation",
            arxiv="2301.01156",
            summary="Segments every instance of a class that a few masked examples show.",
            tasks=("few-shot-instance-segmentation",),
            extra="reft",
            citation=Citation(
                "Yue Han and Jiangning Zhang and others",
                2023,
            ),
            models=(
                ModelEntry(
                    model_type="reft",
                    config="RefTConfig",
                    auto_classes={
                        "AutoModel": "RefTModel",
                        "AutoModelForFewShotInstanceSegmentation": "RefTForFewShotInstanceSegmentation",
                    },
                    image_processors={"torchvision": "RefTImageProcessor"},
                    processor="RefTProcessor",
                    further_classes={"RefTSupportMemory": "support.memory"},
                ),
            ),
        ),
        Method(
            name="pmt_iqa",
            title="PMT-IQA: Progressive Multi-task Learning for Blind Image Quality Assessment",
            arxiv="2301.01182",
            summary="Scores the quality of a photo without a reference.",
            tasks=("image-quality-assessment",),
            extra="pmt_iqa",
            citation=Citation(
                "Qingyi Pan and Ning Guo and Letu Qingge and Jingyi Zhang and Pei Yang",
                2023,
                "PRICAI 2023",
            ),
            models=(
                ModelEntry(
                    model_type="pmt_iqa",
                    config="PmtIqaConfig",
                    auto_classes={
                        "AutoModel": "PmtIqaModel",
                        "AutoModelForImageQualityAssessment": "PmtIqaForImageQualityAssessment",
                    },
                    image_processors={"torchvision": "PmtIqaImageProcessor", "pil": "PmtIqaImageProcessorPil"},
                    further_classes={"QualityLevelBinner": "levels", "ProgressiveTaskCallback": "weighting"},
                ),
            ),
        ),
        Method(
            name="doorping",
            title="Backdoor Attacks Against Dataset Distillation",
            arxiv="2301.01197",
            summary="Audits distilled datasets: does a backdoor survive, and which defense sees it.",
            tasks=("dataset-distillation", "image-classification"),
            extra="doorping",
            citation=Citation(
                "Yugeng Liu and Zheng Li and Michael Backes and Yun Shen and Yang Zhang",
                2023,
                "NDSS 2023",
            ),
            models=(
                ModelEntry(
                    model_type="doorping",
                    config="DoorpingConfig",
                    auto_classes={"AutoModel": "DistilledDataset"},
                    image_processors={"torchvision": "DoorpingImageProcessor", "pil": "DoorpingImageProcessorPil"},
                ),
                ModelEntry(
                    model_type="distill_convnet",
                    config="ConvNetConfig",
                    auto_classes={"AutoModelForImageClassification": "ConvNetForImageClassification"},
                    image_processors={"torchvision": "DoorpingImageProcessor", "pil": "DoorpingImageProcessorPil"},
                    file_stem="convnet",
                    further_classes=_DOORPING_IMAGE_PROCESSORS,
                ),
                ModelEntry(
                    model_type="distill_alexnet",
                    config="AlexNetConfig",
                    auto_classes={"AutoModelForImageClassification": "AlexNetForImageClassification"},
                    image_processors={"torchvision": "DoorpingImageProcessor", "pil": "DoorpingImageProcessorPil"},
                    file_stem="alexnet",
                    further_classes=_DOORPING_IMAGE_PROCESSORS,
                ),
                ModelEntry(
                    model_type="distill_transfer_net",
                    config="TransferNetConfig",
                    auto_classes={"AutoModelForImageClassification": "TransferNetForImageClassification"},
                    image_processors={"torchvision": "DoorpingImageProcessor", "pil": "DoorpingImageProcessorPil"},
                    file_stem="transfer_net",
                    further_classes=_DOORPING_IMAGE_PROCESSORS,
                ),
            ),
        ),
        Method(
            name="raw_gnn",
            title="RAW-GNN: RAndom Walk Aggregation based Graph Neural Network",
            arxiv="2206.13953",
            summary="Classifies nodes of graphs whose neighbors agree or disagree.",
            tasks=("node-classification",),
            extra="raw_gnn",
            citation=Citation(
                "Di Jin and Rui Wang and Meng Ge and Dongxiao He and Xiang Li and Wei Lin and Weixiong Zhang",
                2022,
                "IJCAI 2022",
            ),
            models=(
                ModelEntry(
                    model_type="raw_gnn",
                    config="RawGnnConfig",
                    auto_classes={
                        "AutoModel": "RawGnnModel",
                        "AutoModelForNodeClassification": "RawGnnForNodeClassification",
                    },
                    feature_extractor="RawGnnFeatureExtractor",
                ),
            ),
        ),
        Method(
            name="reliant",
            title="RELIANT: Fair Knowledge Distillation for Graph Neural Networks",
            arxiv="2301.01150",
            summary="Distills a graph network into a small one that treats groups fairly.",
            tasks=("fair-node-classification", "node-classification"),
            extra="reliant",
            citation=Citation(
                "Yushun Dong and Binchi Zhang and Yiling Yuan and Na Zou and Qi Wang and Jundong Li",
                2023,
                "SDM 2023",
            ),
            models=(
                ModelEntry(
                    model_type="reliant",
                    config="ReliantConfig",
                    auto_classes={
                        "AutoModel": "ReliantModel",
                        "AutoModelForNodeClassification": "ReliantForNodeClassification",
                    },
                    feature_extractor="ReliantFeatureExtractor",
                ),
            ),
        ),
        Method(
            name="drum_lm",
            title="Language Models are Drummers: Drum Composition with Natural Language Pre-Training",
            arxiv="2301.01162",
            summary="Continues a drum groove with a language model.",
            tasks=("drum-generation",),
            extra="drum_lm",
            citation=Citation(
                "Li Zhang and Chris Callison-Burch",
                2023,
                "AAAI 2023 workshop on Creative AI across Modalities",
            ),
            models=(
                ModelEntry(
                    model_type="drum_lm",
                    config="DrumLmConfig",
                    auto_classes={"AutoModelForCausalLM": "DrumLmForCausalLM"},
                    processor="DrumLmProcessor",
                    further_classes={"DrumPerformance": "midi.performance"},
                ),
            ),
        ),
        Method(
            name="mpd_subtyping",
            title="Identifying and validating subtypes within major psychiatric disorders based on frontal-posterior "
            "functional imbalance via deep learning",
            arxiv=None,
            doi="10.1038/s41380-020-00892-3",
            summary="Finds patient subtypes in tables of brain features, and tests whether they are real.",
            tasks=("patient-subtyping",),
            extra="mpd_subtyping",
            citation=Citation(
                "Miao Chang and Fay Y. Womer and Xiaohong Gong and others",
                2021,
                "Molecular Psychiatry",
            ),
            models=(
                ModelEntry(
                    model_type="mpd_subtyping",
                    config="MpdSubtypingConfig",
                    auto_classes={"AutoModel": "MpdSubtypingModel"},
                    feature_extractor="MpdSubtypingFeatureExtractor",
                ),
            ),
        ),
    )
}

# Of several tasks with one Auto class, the first is the one of a model that says nothing else.
TASKS: dict[str, TaskEntry] = {
    task.name: task
    for task in (
        TaskEntry(
            name="image-classification",
            family="image-classification",
            metric="top_k_accuracy",
            auto_class="AutoModelForImageClassification",
            processor="image_processor",
            module="image_classification",
            hub_tag="image-classification",
        ),
        TaskEntry(
            name="image-feature-extraction",
            family="image-classification",
            metric="feature_probe",
            auto_class="AutoModel",
            processor="image_processor",
            module="image_feature_extraction",
            hub_tag="image-feature-extraction",
        ),
        TaskEntry(
            name="semantic-segmentation",
            family="semantic-segmentation",
            metric="mean_iou",
            auto_class="AutoModelForSemanticSegmentation",
            processor="image_processor",
            module="semantic_segmentation",
            hub_tag="image-segmentation",
        ),
        TaskEntry(
            name="node-classification",
            family="node-classification",
            metric="node_accuracy",
            auto_class="AutoModelForNodeClassification",
            processor="feature_extractor",
            module="node_classification",
            pipeline="NodeClassificationPipeline",
            is_new=True,
            tags=("node-classification", "graph-ml"),
        ),
        TaskEntry(
            name="fair-node-classification",
            family="node-classification",
            metric="group_fairness",
            auto_class="AutoModelForNodeClassification",
            processor="feature_extractor",
            module="fair_node_classification",
            is_new=True,
            tags=("node-classification", "graph-ml"),
        ),
        TaskEntry(
            name="drum-generation",
            family="drum-generation",
            metric="drum_structure",
            auto_class="AutoModelForCausalLM",
            processor="processor",
            module="drum_generation",
            pipeline="DrumGenerationPipeline",
            tags=("drum-generation", "music", "midi"),
        ),
        TaskEntry(
            name="object-detection-3d",
            family="object-detection-3d",
            metric="nuscenes_detection",
            auto_class="AutoModelForObjectDetection3D",
            processor="processor",
            module="object_detection_3d",
            pipeline="ObjectDetection3DPipeline",
            is_new=True,
            tags=("object-detection-3d", "3d-object-detection", "autonomous-driving"),
        ),
        TaskEntry(
            name="image-quality-assessment",
            family="image-quality",
            metric="image_quality",
            auto_class="AutoModelForImageQualityAssessment",
            processor="image_processor",
            module="image_quality_assessment",
            pipeline="ImageQualityAssessmentPipeline",
            is_new=True,
            tags=("image-quality-assessment", "blind-image-quality", "iqa"),
        ),
        TaskEntry(
            name="dataset-distillation",
            family="image-classification",
            metric="backdoor_audit",
            auto_class="AutoModel",
            processor="image_processor",
            module="dataset_distillation",
            tags=("dataset-distillation", "backdoor-audit"),
        ),
        TaskEntry(
            name="few-shot-instance-segmentation",
            family="few-shot-instance-segmentation",
            metric="few_shot_map",
            auto_class="AutoModelForFewShotInstanceSegmentation",
            processor="processor",
            module="few_shot_instance_segmentation",
            pipeline="FewShotInstanceSegmentationPipeline",
            is_new=True,
            tags=("few-shot-instance-segmentation", "instance-segmentation", "few-shot-learning"),
        ),
        TaskEntry(
            name="patient-subtyping",
            family="cohorts",
            metric="subtype_validity",
            auto_class="AutoModel",
            processor="feature_extractor",
            module="patient_subtyping",
            pipeline="PatientSubtypingPipeline",
            tags=("patient-subtyping", "clustering", "neuroimaging"),
        ),
    )
}


def list_new_auto_classes() -> list[str]:
    """Names of the Auto classes that `decahub.auto` defines."""
    return list(dict.fromkeys(task.auto_class for task in TASKS.values() if task.is_new))


def list_pipelines() -> dict[str, TaskEntry]:
    """Tasks with a pipeline of ours, by the module that defines it."""
    return {f"decahub.pipelines.{task.module}": task for task in TASKS.values() if task.pipeline is not None}


def find_modules(method: Method, entry: ModelEntry) -> dict[str, str]:
    """The module that defines each class of a model entry, by the naming rule of model rooms."""
    stem = entry.file_stem or method.name
    files = {entry.config: f"configuration_{stem}"}
    files |= dict.fromkeys(entry.auto_classes.values(), f"modeling_{stem}")
    for backend, name in entry.image_processors.items():
        files[name] = f"image_processing_{stem}" if backend == "torchvision" else f"image_processing_{backend}_{stem}"
    if entry.feature_extractor is not None:
        files[entry.feature_extractor] = f"feature_extraction_{stem}"
    if entry.processor is not None:
        files[entry.processor] = f"processing_{stem}"
    files |= entry.further_classes
    return {name: f"decahub.models.{method.name}.{file}" for name, file in files.items()}


# Every public name of the package to the module that defines it.
PUBLIC_NAMES: dict[str, str] = {
    "load_dataset": "decahub.data",
    "load_metric": "decahub.metrics",
    **dict.fromkeys(list_new_auto_classes(), "decahub.auto"),
    **{
        name: module
        for method in METHODS.values()
        for entry in method.models
        for name, module in find_modules(method, entry).items()
    },
    **{str(task.pipeline): module for module, task in list_pipelines().items()},
}
