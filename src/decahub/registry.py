"""The table of methods: what each is, and which classes it has. Plain data: importing it imports no library.

Classes stand here by name; `PUBLIC_NAMES` says which module defines each.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelEntry:
    """One `model_type` of a method and the classes that belong to it, by name.

    Args:
        model_type (`str`): as in `config.json`.
        config (`str`): class of the configuration.
        auto_classes (`dict[str, str]`): Auto class, of transformers or of `NEW_AUTO_CLASSES`, to model class.
        image_processors (`dict[str, str]`): backend ("torchvision", "pil") to class; empty if there is none.
        feature_extractor (`str`, *optional*): class for a single input that is no image.
        processor (`str`, *optional*): class of a processor of several parts.
        file_stem (`str`, *optional*): how the names of the files end, where not with the method's name:
            `modeling_<file_stem>.py`. For a method with several model types.
        companions (`dict[str, str]`): further public classes to their file, such as `midi.performance`.
    """

    model_type: str
    config: str
    auto_classes: dict[str, str]
    image_processors: dict[str, str] = field(default_factory=dict)
    feature_extractor: str | None = None
    processor: str | None = None
    file_stem: str | None = None
    companions: dict[str, str] = field(default_factory=dict)


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
        tasks (`tuple[str, ...]`): names of tasks, as pipelines and the Hub write them where they have the task.
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
class PipelineEntry:
    """A pipeline for a task that transformers has none for.

    Args:
        module (`str`): defines the class.
        pipeline (`str`): name of the class.
        auto_class (`str`): name of the Auto class that loads its models.
    """

    module: str
    pipeline: str
    auto_class: str


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="emo",
            title="Rethinking Mobile Block for Efficient Attention-based Models",
            arxiv="2301.01146",
            summary="A small, fast image backbone for classification and dense prediction.",
            tasks=("image-feature-extraction", "image-classification", "image-segmentation"),
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
            tasks=("image-feature-extraction", "image-classification", "image-segmentation"),
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
                    companions={"TinyMimTeacher": "teacher_tinymim"},
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
            tasks=("node-classification",),
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
                    companions={"DrumPerformance": "midi.performance"},
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
            tasks=("subtype-discovery",),
            extra="mpd_subtyping",
            citation=Citation(
                "Miao Chang and Fay Y. Womer and Xiaohong Gong and others",
                2021,
                "Molecular Psychiatry",
            ),
        ),
    )
}

# Tasks that transformers has no Auto class for; `decahub.auto` defines these.
NEW_AUTO_CLASSES = (
    "AutoModelForFewShotInstanceSegmentation",
    "AutoModelForImageQualityAssessment",
    "AutoModelForNodeClassification",
    "AutoModelForObjectDetection3D",
)

# Name of a task to its pipeline. Those of transformers (image-classification, ...) need no entry.
PIPELINES: dict[str, PipelineEntry] = {
    "node-classification": PipelineEntry(
        module="decahub.pipelines.node_classification",
        pipeline="NodeClassificationPipeline",
        auto_class="AutoModelForNodeClassification",
    ),
    "drum-generation": PipelineEntry(
        module="decahub.pipelines.drum_generation",
        pipeline="DrumGenerationPipeline",
        auto_class="AutoModelForCausalLM",
    ),
}


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
    files |= entry.companions
    return {name: f"decahub.models.{method.name}.{file}" for name, file in files.items()}


# Every public name of the package to the module that defines it.
PUBLIC_NAMES: dict[str, str] = {
    "load_metric": "decahub.metrics",
    **dict.fromkeys(NEW_AUTO_CLASSES, "decahub.auto"),
    **{
        name: module
        for method in METHODS.values()
        for entry in method.models
        for name, module in find_modules(method, entry).items()
    },
    **{entry.pipeline: entry.module for entry in PIPELINES.values()},
}
