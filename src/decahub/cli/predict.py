"""`decahub predict`: what a model sees in images, says of the nodes of graphs, or makes of drum grooves."""

import argparse
import colorsys
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .table import format_table


if TYPE_CHECKING:
    import numpy


HELP = "classify images, segment them into a PNG beside each, classify the nodes of graphs, or continue drum grooves"
EXAMPLES = """  decahub predict model_cards/emo-1m-sign-digits examples/assets/*.jpg
  decahub predict model_cards/emo-1m-cifar10 cat.jpg --top-k 3
  decahub predict model_cards/emo-1m-camvid-segformer street.png --output-dir masks
  decahub predict model_cards/raw-gnn-texas texas --nodes 0 7 12
  decahub predict model_cards/raw-gnn-texas my_graph.npz --top-k 2
  decahub predict model_cards/drum-lm-small-groove groove.mid --bars 16 --seed 29"""
GOLDEN_RATIO = 0.618034  # successive hues at this distance on the color circle stay far apart


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="model folder, or id of a published model")
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="image files; MIDI files; graphs: .npz files or names"
    )
    parser.add_argument("--top-k", type=int, default=1, help="classes to show for each image or node (default: 1)")
    parser.add_argument("--output-dir", type=Path, help="where new files go; by default beside each input")
    parser.add_argument("--nodes", type=int, nargs="+", help="ids of the nodes to classify; by default all")
    parser.add_argument(
        "--data-dir", type=Path, help="directory of the graphs that are named; by default $DECAHUB_DATA_DIR"
    )
    parser.add_argument("--bars", type=int, default=16, help="bars of a groove, those given included (default: 16)")
    parser.add_argument("--prompt-bars", type=int, help="bars of a MIDI file to continue; by default the model's")
    parser.add_argument(
        "--temperature", type=float, default=0.9, help="0 always takes the most probable (default: 0.9)"
    )
    parser.add_argument("--seed", type=int, help="makes a groove repeatable; by default each is another")


def run(arguments: argparse.Namespace) -> int:
    from transformers import AutoConfig

    from .quiet import silence_libraries

    silence_libraries()
    if arguments.top_k < 1:
        raise ValueError(f"`--top-k` must be at least 1; got {arguments.top_k}.")
    architecture = AutoConfig.from_pretrained(arguments.model, trust_remote_code=False).architectures[0]
    commands = {
        "ForImageClassification": classify,
        "ForSemanticSegmentation": segment,
        "ForNodeClassification": classify_nodes,
        "ForCausalLM": continue_grooves,
    }
    for suffix, command in commands.items():
        if architecture.endswith(suffix):
            command(arguments)
            return 0
    kinds = " or ".join(commands)
    raise ValueError(f"`model` must be a model {kinds}; got {architecture}. Use it from Python.")


def find_images(inputs: list[str]) -> list[Path]:
    """The inputs as paths of images."""
    for name in inputs:
        if not Path(name).is_file():
            raise FileNotFoundError(f"`INPUT` must be an image file; got {name!r}, which does not exist.")
    return [Path(name) for name in inputs]


def classify(arguments: argparse.Namespace) -> None:
    """Prints the most probable classes of each image."""
    from transformers import pipeline

    images = find_images(arguments.inputs)
    classifier = pipeline("image-classification", model=arguments.model, trust_remote_code=False)
    rows = []
    for path in images:
        for answer in classifier(str(path), top_k=arguments.top_k):
            rows.append((path.name, answer["label"], f"{answer['score']:.3f}"))
    print(format_table(("image", "class", "probability"), rows))


def segment(arguments: argparse.Namespace) -> None:
    """Writes a color image of the classes of each image, and prints their shares of its area."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    images = find_images(arguments.inputs)
    model = AutoModelForSemanticSegmentation.from_pretrained(arguments.model, trust_remote_code=False)
    processor = AutoImageProcessor.from_pretrained(arguments.model, trust_remote_code=False)
    rows = []
    for path in images:
        image = Image.open(path).convert("RGB")
        with torch.inference_mode():
            outputs = model(**processor(image, return_tensors="pt"))
        classes = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[0]
        target = (arguments.output_dir or path.parent) / f"{path.stem}_segmentation.png"
        save_segmentation(classes.to(torch.uint8).numpy(), len(model.config.id2label), target)
        ids, counts = classes.unique(return_counts=True)
        for label, count in sorted(zip(ids.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1]):
            rows.append((path.name, model.config.id2label[label], f"{count / classes.numel():.1%}", target))
    print(format_table(("image", "class", "area", "written to"), rows))


def classify_nodes(arguments: argparse.Namespace) -> None:
    """Prints the most probable classes of the nodes of each graph."""
    from transformers import pipeline

    graphs = {name: load_graph(name, arguments.data_dir) for name in arguments.inputs}
    task: Any = "node-classification"  # ours: the types of transformers list only its own tasks
    classifier = pipeline(task, model=arguments.model, trust_remote_code=False)
    rows = []
    for name, graph in graphs.items():
        for answer in classifier(graph, nodes=arguments.nodes, top_k=arguments.top_k):
            for label, probability in answer["probabilities"].items():
                rows.append((Path(name).name, answer["node"], label, f"{probability:.3f}"))
    print(format_table(("graph", "node", "class", "probability"), rows))


def load_graph(name: str, data_dir: Path | None) -> "dict[str, Any]":
    """A graph from a file, or from the dataset of that name."""
    from decahub.data import DATASETS, load_dataset
    from decahub.data.graph_files import read_unlabeled_graph

    if Path(name).is_file():
        return read_unlabeled_graph(Path(name))
    names = [entry.name for entry in DATASETS.values() if entry.family == "node-classification"]
    if name not in names:
        raise FileNotFoundError(f"`INPUT` must be a .npz file that exists or one of {', '.join(names)}; got {name!r}.")
    return load_dataset(name, data_dir)["graph"][0]


def continue_grooves(arguments: argparse.Namespace) -> None:
    """Writes a MIDI file, an image and a sound of the continuation of each drum groove."""
    from transformers import pipeline

    for name in arguments.inputs:
        if not Path(name).is_file():
            raise FileNotFoundError(f"`INPUT` must be a MIDI file; got {name!r}, which does not exist.")
    task: Any = "drum-generation"  # ours: the types of transformers list only its own tasks
    compose = pipeline(task, model=arguments.model, trust_remote_code=False)
    names = ("bars", "prompt_bars", "temperature", "seed")
    rows = []
    for path in map(Path, arguments.inputs):
        answer = compose(str(path), **{name: getattr(arguments, name) for name in names})[0]
        target = (arguments.output_dir or path.parent) / f"{path.stem}_continued"
        for suffix, key in ((".mid", "midi"), (".png", "png"), (".wav", "wav")):
            write_bytes(target.with_name(target.name + suffix), answer[key])
        rows.append((path.name, answer["bars"], f"{answer['tempo']:.0f}", f"{target}.mid, .png, .wav"))
    print(format_table(("groove", "bars", "tempo", "written to"), rows))


def write_bytes(target: Path, data: bytes) -> None:
    """Writes a file that appears whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, target)


def save_segmentation(classes: "numpy.ndarray", num_labels: int, target: Path) -> None:
    """Saves class ids as a palette PNG: a viewer shows colors, a program reads the ids.

    Args:
        classes (`numpy.ndarray` of shape `(height, width)`): ids as unsigned bytes.
        num_labels (`int`): number of classes.
        target (`pathlib.Path`): file to write.
    """
    from PIL import Image

    image = Image.fromarray(classes)
    image.putpalette([round(255 * part) for index in range(num_labels) for part in choose_color(index)])
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    image.save(partial, format="PNG")
    os.replace(partial, target)


def choose_color(index: int) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1] of a class."""
    return colorsys.hsv_to_rgb((index * GOLDEN_RATIO) % 1, 0.7, 0.95)
