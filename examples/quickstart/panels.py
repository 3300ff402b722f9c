"""What the page shows of each method: one function a method, listed in `PANELS`.

A panel runs the code that it shows, from the folder of the project, and draws what that code computed.
"""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from drawing import (
    draw_answers,
    draw_audio,
    draw_curve,
    draw_graph,
    draw_image,
    draw_rates,
    draw_roll,
    draw_table,
    draw_tiles,
)
from fine_tuning import fine_tune
from markupsafe import Markup
from PIL import Image, ImageDraw
from samples import (
    COLUMNS,
    count_found,
    write_cohort,
    write_pages,
    write_people,
    write_scene,
    write_shapes,
    write_versions,
)
from sklearn.datasets import load_sample_image
from transformers import AutoFeatureExtractor, pipeline

import decahub  # noqa: F401  (registers the models)


PROJECT = Path(__file__).resolve().parents[2]
CARDS = PROJECT / "model_cards"


@dataclass(frozen=True)
class Score:
    """A score of a published model: what is measured, its value, and on which data."""

    metric: str
    value: str
    data: str


@dataclass(frozen=True)
class Panel:
    """A card of the page.

    Args:
        title (`str`): what a user can do.
        text (`str`): one or two sentences about the sample and the answer; what is generated is named here.
        folder (`Path`): of the model.
        scores (`list[Score]`): the headline first.
        input, output (`Markup`): drawings.
        input_caption, output_caption (`str`): a line below each.
        code (`str`): runs from the folder of the project.
        printed (`str`): what the code printed.
        result (`str`): the answer in one line, for the terminal.
    """

    title: str
    text: str
    folder: Path
    scores: list[Score]
    input: Markup
    input_caption: str
    output: Markup
    output_caption: str
    code: str
    printed: str
    result: str


def run_code(code: str) -> tuple[dict[str, Any], str]:
    """Runs a few lines as a user would, in the folder of the project; returns their names and what they printed."""
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.chdir(PROJECT), contextlib.redirect_stdout(printed):
        exec(code, names)
    return names, printed.getvalue()


def show_path(path: Path) -> str:
    """Path as the code of a panel names it: relative to the project where possible."""
    return (path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path).as_posix()


def read_score(model: str, metric: str | None = None, label: str | None = None) -> Score:
    """A score of a model card, by default the first of its `evaluation.json`, under its own name."""
    evaluation = json.loads((CARDS / model / "evaluation.json").read_text())
    row = next(row for row in evaluation["figures"] if metric in (None, row["metric"]))
    name, value, data = row["metric"], row["value"], evaluation["dataset"]
    if name.startswith("bits"):
        shown = f"{value:.2f}"
    elif name.endswith("difference"):
        shown = f"{100 * value:.1f} points"
    else:
        shown = f"{value:.1%}"
    return Score(label or name.replace("_", " "), shown, f"{data['title']}, {data['split']} split, {row['n']:,} rows")


def show_emo(output_dir: Path) -> Panel:
    code = """\
from glob import glob
import decahub
from transformers import pipeline

images = sorted(glob("examples/assets/*.jpg"))
classify = pipeline("image-classification", model="model_cards/emo-1m-sign-digits")
answers = classify(images, top_k=1)
print(images[4], answers[4])"""
    names, printed = run_code(code)
    paths = [PROJECT / path for path in names["images"]]
    shown = [path.stem.removeprefix("sign_digit_")[0] for path in paths]
    answers = [answer[0] for answer in names["answers"]]
    right = [answer["label"] == digit for answer, digit in zip(answers, shown, strict=True)]
    images = [
        draw_image(Image.open(path).convert("RGB"), f"A hand signing the digit {digit}", is_photo=True)
        for path, digit in zip(paths, shown, strict=True)
    ]
    return Panel(
        title="Read a digit from a hand sign",
        text="A backbone of one million parameters reads twelve photographs that it has not seen in training.",
        folder=CARDS / "emo-1m-sign-digits",
        scores=[read_score("emo-1m-sign-digits")],
        input=draw_tiles([(image, f"signs {digit}") for image, digit in zip(images, shown, strict=True)]),
        input_caption="Twelve images of the test split of Sign Language Digits.",
        output=draw_answers(
            [(answer["label"], answer["score"], is_right) for answer, is_right in zip(answers, right, strict=True)]
        ),
        output_caption="The most probable digit of each image, with its probability.",
        code=code,
        printed=printed,
        result=f"{sum(right)} of {len(right)} images right",
    )


def show_tinymim(output_dir: Path) -> Panel:
    model = "tinymim-student-cifar10"
    rows, columns, row, column = 32, 48, 16, 23
    code = f"""\
import decahub
import torch
from sklearn.datasets import load_sample_image
from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained("model_cards/{model}")
processor = AutoImageProcessor.from_pretrained("model_cards/{model}", size={{"height": 256, "width": 384}})
inputs = processor(load_sample_image("flower.jpg").copy(), return_tensors="pt")
patches = model(**inputs, interpolate_pos_encoding=True).last_hidden_state[0, 1:]  # {rows} x {columns} patches
similarity = torch.cosine_similarity(patches, patches[{row} * {columns} + {column}], dim=-1)
print(tuple(patches.shape), f"{{(similarity > 0.5).float().mean():.0%}} of the patches are alike")"""
    names, printed = run_code(code)
    similarity = names["similarity"].detach().reshape(rows, columns).clamp(0, 1).numpy()
    photo = Image.fromarray(load_sample_image("flower.jpg")).resize((576, 384))
    size = 576 // columns
    box = [size * column, size * row, size * (column + 1), size * (row + 1)]
    ImageDraw.Draw(photo).rectangle([box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3], outline="white", width=3)
    dark, bright = np.array([24.0, 20, 46]), np.array([255.0, 190, 92])
    heat = dark + (bright - dark) * similarity[..., None]
    return Panel(
        title="Find what looks alike, without a label",
        text="A vision transformer with 0.45 million parameters, distilled from a larger one on 32-pixel images "
        "without a label, compares one patch of a photograph with all others.",
        folder=CARDS / model,
        scores=[
            read_score(model),
            read_score("tinymim-student-cifar10-5k", label="accuracy, fine-tuned with 5,000 labels"),
            read_score("tinymim-scratch-cifar10-5k", label="accuracy, the same from scratch"),
        ],
        input=draw_image(photo, "A dahlia in front of leaves; a white square marks a patch of it", is_photo=True),
        input_caption="A photograph that comes with scikit-learn, and the patch that is asked for.",
        output=draw_image(
            Image.fromarray(heat.round().astype("uint8")).resize((576, 384), Image.Resampling.NEAREST),
            "Similarity of all patches to the marked one: the flower is bright, the leaves are dark",
        ),
        output_caption="Cosine similarity of the features, from dark (0 or less) to bright (1).",
        code=code,
        printed=printed,
        result=printed.strip(),
    )


def show_raw_gnn(output_dir: Path) -> Panel:
    path = output_dir / "pages.npz"
    given = write_pages(path, pipeline("node-classification", model=str(CARDS / "raw-gnn-texas")))
    code = f"""\
import decahub
import numpy as np
from transformers import pipeline

pages = dict(np.load("{show_path(path)}"))  # node_features (24, 1703) and edge_index (2, 48)
classify = pipeline("node-classification", model="model_cards/raw-gnn-texas")
answers = classify(pages, top_k=2)
print(answers[0])"""
    names, printed = run_code(code)
    edges = names["pages"]["edge_index"]
    found = [int(answer["label"].removeprefix("class ")) for answer in names["answers"]]
    right = int((np.array(found) == given).sum())
    return Panel(
        title="Classify pages whose links join opposites",
        text="Averaging over neighbors blurs a graph whose neighbors differ; RAW-GNN reads random walks instead. This "
        "graph is generated: no link joins two pages of one class, and the words of a page are 25 that this model "
        "connects with its class and 50 drawn at random. It shows the mechanics, the score shows the accuracy.",
        folder=CARDS / "raw-gnn-texas",
        scores=[read_score("raw-gnn-texas")],
        input=draw_graph(edges, given.tolist(), "24 pages on a circle; each link joins two classes", is_colored=False),
        input_caption="24 generated pages; the digit is the class that its words were taken from.",
        output=draw_graph(edges, found, f"The same graph; {right} of 24 classes were found", is_colored=True),
        output_caption=f"The class that the model found: {right} of {len(given)} agree.",
        code=code,
        printed=printed,
        result=f"{right} of {len(given)} pages right",
    )


def show_reliant(output_dir: Path) -> Panel:
    teacher, student = "reliant-gcn-teacher-german", "reliant-sgc-german"
    path = output_dir / "people.npz"
    write_people(path, AutoFeatureExtractor.from_pretrained(CARDS / student))
    code = f"""\
import decahub
import numpy as np
from transformers import pipeline

people = dict(np.load("{show_path(path)}"))  # node_features (500, 27) and edge_index
classify = pipeline("node-classification", model="model_cards/{student}")
is_good = np.array([answer["label"] == "good customer" for answer in classify(people)])
is_woman = people["node_features"][:, 0] == 1
print(f"men {{is_good[~is_woman].mean():.1%}}, women {{is_good[is_woman].mean():.1%}}")"""
    generated, published = [], []
    for name, model in (("teacher", teacher), ("RELIANT", student)):
        names, printed = run_code(code.replace(student, model))
        rates = [float(names["is_good"][group].mean()) for group in (~names["is_woman"], names["is_woman"])]
        generated.append((name, *rates))
        rows = json.loads((CARDS / model / "evaluation.json").read_text())["figures"]
        values = {row["metric"]: row["value"] for row in rows}
        published.append((name, values["positive_rate_group_0"], values["positive_rate_group_1"]))
    table = names["people"]["node_features"]
    shown = ("Gender", "Age", "LoanAmount", "LoanDuration", "Single", "RentsHouse")
    picked = [0, 1, 2, -3, -2, -1]
    rows = [
        ["woman" if table[index, 0] else "man", *(f"{table[index, COLUMNS.index(name)]:,.0f}" for name in shown[1:])]
        for index in picked
    ]
    return Panel(
        title="Distill a network, not its bias",
        text="A large graph network calls men good customers more often than women, and plain distillation copies "
        "that. The student of RELIANT learns from the same teacher under a penalty on the gap. The 500 people are "
        "generated, with the average differences of German credit between the two groups.",
        folder=CARDS / student,
        scores=[
            read_score(student, "statistical_parity_difference"),
            read_score(teacher, "statistical_parity_difference", "the same of the teacher"),
            read_score(student, "accuracy"),
            read_score(student, "majority_class_accuracy", "accuracy of calling everyone good"),
        ],
        input=draw_table(["gender", "age", "amount", "months", "single", "rents"], rows),
        input_caption="Six of 500 generated people and 6 of 27 columns; "
        f"{names['people']['edge_index'].shape[1] // 2:,} links join people who are alike.",
        output=draw_rates(
            [("500 generated people", generated), ("250 real people, as in the model cards", published)],
            "Share of men and of women called good customers: "
            + "; ".join(f"{name} {men:.0%} and {women:.0%}" for name, men, women in (*generated, *published)),
        ),
        output_caption="Share of each group that is called a good customer, and the gap between them.",
        code=code,
        printed=printed,
        result="gap between men and women "
        + ", ".join(f"{abs(men - women):.1%} ({name})" for name, men, women in generated),
    )


def show_drum_lm(output_dir: Path) -> Panel:
    wav = output_dir / "groove.wav"
    code = f"""\
import decahub
from transformers import pipeline

compose = pipeline("drum-generation", model="model_cards/drum-lm-small-groove")
bar = "---oo- ------ ----o- ------ --o-o- ------ ----o- ---o-- ---oo- ------ ---oo- ------ --o-o- ------ ----o- ------"
groove = compose((bar + " ").replace(" ", "\\n") * 2, bars=8, seed=29)[0]
open("{show_path(wav)}", "wb").write(groove["wav"])
print(groove["bars"], "bars, valid:", groove["valid"])"""
    names, printed = run_code(code)
    groove = names["groove"]
    drums = ("crash", "ride", "snare", "kick", "hi-hat", "tom")
    num_given = 16 * groove["prompt_bars"]
    return Panel(
        title="Continue a drum groove",
        text="A language model whose tokens are the hits of one sixteenth note hears two bars, written as text, and "
        "plays six more. A grammar keeps each answer playable, and a seed keeps it the same.",
        folder=CARDS / "drum-lm-small-groove",
        scores=[read_score("drum-lm-small-groove")],
        input=draw_roll(groove["roll"][:num_given], drums, num_given, "A rock beat: kick, snare and hi-hat"),
        input_caption="One bar of a beat made for this page, twice.",
        output=draw_roll(groove["roll"], drums, num_given, "Eight bars: two that were given, six that the model wrote")
        + draw_audio(groove["wav"], "The groove of eight bars"),
        output_caption='Gray bars were given, colored ones are new. Also as MIDI: groove["midi"].',
        code=code,
        printed=printed,
        result=printed.strip(),
    )


def show_reft(output_dir: Path) -> Panel:
    model, names = "reft-refshapes", ("star", "ring", "arrow")
    photos = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    folder = show_path(write_shapes(output_dir / "shapes", names, photos, seed=2))
    code = f"""\
import decahub
from transformers import pipeline

segment = pipeline("few-shot-instance-segmentation", model="model_cards/{model}")
support = {{name: [(f"{folder}/{{name}}.png", f"{folder}/{{name}}_mask.png")] for name in {names}}}
found = segment("{folder}/scene.png", support=support)
print([(instance["label"], round(instance["score"], 2)) for instance in found])"""
    ran, printed = run_code(code)
    scene = Image.open(output_dir / "shapes" / "scene.png")
    shots = [(draw_image(Image.open(output_dir / "shapes" / f"{name}.png"), f"A {name}"), name) for name in names]
    found = ran["found"]
    return Panel(
        title="Segment what a few examples show",
        text="A tiny instance segmenter gets one masked example of each class and finds their instances in another "
        "image. Examples and scene are generated; the model was trained on such shapes in front of photographs.",
        folder=CARDS / model,
        scores=[read_score(model)],
        input=draw_tiles([*shots, (draw_image(scene, "Shapes that lie on each other"), "scene")]),
        input_caption="One example of each of three classes, and the image to segment.",
        output=draw_image(
            ran["segment"].draw_overlay(scene, found).resize((384, 384), Image.Resampling.LANCZOS),
            "The scene with the mask, the box and the class of each instance that was found",
        ),
        output_caption=f"{len(found)} instances with a score of at least 0.5.",
        code=code,
        printed=printed,
        result=printed.strip(),
    )


def show_cmt(output_dir: Path) -> Panel:
    model = CARDS / "cmt-small-driving-scenes"
    table, sheet = output_dir / "scene.json", output_dir / "scene_boxes.png"
    scene = write_scene(table)
    code = f"""\
import decahub
from transformers import pipeline

detect = pipeline("object-detection-3d", model="{show_path(model)}")
answer = detect("{show_path(table)}", threshold=0.3, draw=True, draw_annotations=True)
open("{show_path(sheet)}", "wb").write(answer["png"])
blind = detect("{show_path(table)}", threshold=0.3, missing=["lidar"])
print(len(answer["boxes"]), "boxes,", len(blind), "without the LiDAR")"""
    names, printed = run_code(code)
    found, found_blind = count_found(names["answer"]["boxes"], scene), count_found(names["blind"], scene)
    num_objects = len(scene["labels"])
    width, height = scene["images"][0].size
    views = Image.new("RGB", (2 * width, 2 * height))
    for index, image in enumerate(scene["images"]):
        views.paste(image, (index % 2 * width, index // 2 * height))
    directions = [name.removeprefix("CAM_").lower() for name in scene["cameras"]]
    return Panel(
        title="Find boxes with cameras and LiDAR",
        text="One small network reads four cameras and a LiDAR, and goes on when a sensor fails. The scene is "
        "generated: colored boxes on a plane, of the sizes and classes of nuScenes.",
        folder=model,
        scores=[read_score(model.name, label="NDS, the score of nuScenes")],
        input=draw_image(views, f"What the cameras see: {', '.join(directions)}", is_photo=True),
        input_caption=f"A generated scene of {num_objects} objects. The cameras look {', '.join(directions)}; the "
        f"LiDAR adds {len(scene['points']):,} points.",
        output=draw_image(
            Image.open(sheet).reduce(2), "Boxes on the four images and from above, with the points", is_photo=True
        ),
        output_caption=f"Found boxes in color, true ones in white and black: {found} of {num_objects} objects found, "
        f"{found_blind} without the LiDAR.",
        code=code,
        printed=printed,
        result=f"{found} of {num_objects} objects found, {found_blind} without the LiDAR",
    )


def show_pmt_iqa(output_dir: Path) -> Panel:
    model = "pmt-iqa-lite0-biq2021"
    photo = Image.fromarray(load_sample_image("china.jpg"))
    folder = write_versions(output_dir / "photographs", photo)
    code = f"""\
import decahub
from pathlib import Path
from transformers import pipeline

photographs = sorted(Path("{show_path(folder)}").glob("*.png"))
assess = pipeline("image-quality-assessment", model="model_cards/{model}")
scores = {{path.stem: answer["score"] for path, answer in zip(photographs, assess(photographs))}}
print({{name: round(score, 2) for name, score in sorted(scores.items(), key=lambda item: -item[1])}})"""
    ran, printed = run_code(code)
    ranked = sorted(ran["scores"].items(), key=lambda item: -item[1])
    tiles = []
    for name, score in ranked:
        version = Image.open(folder / f"{name}.png").resize((192, 128), Image.Resampling.LANCZOS)
        tiles.append((draw_image(version, f"The photograph, {name}", is_photo=True), f"{name}: {score:.2f}"))
    return Panel(
        title="Rank photographs by quality",
        text="A network gives each photograph a score without knowing what it should look like. It learned from 900 "
        "photographs that people had scored from 0 to 1.",
        folder=CARDS / model,
        scores=[read_score(model, "srcc", "rank correlation with people")],
        input=draw_image(photo.resize((384, 256), Image.Resampling.LANCZOS), "A palace in China", is_photo=True),
        input_caption="A photograph that comes with scikit-learn; it is also blurred, darkened, and so on.",
        output=draw_tiles(tiles),
        output_caption="All versions with their scores, the best first.",
        code=code,
        printed=printed,
        result=printed.strip(),
    )


def show_mpd_subtyping(output_dir: Path) -> Panel:
    model = CARDS / "mpd-subtyping-synthetic"
    path = output_dir / "patients.csv"
    given = write_cohort(path)
    code = f"""\
import decahub
import pandas
from transformers import pipeline

patients = pandas.read_csv("{show_path(path)}")  # 250 controls and 400 patients, 120 features
assign = pipeline("patient-subtyping", model="{show_path(model)}")
answers = assign(patients)
print(answers[0])"""
    names, printed = run_code(code)
    table = names["patients"]
    counts = Counter((answer["subtype"] or "none", given[answer["id"]]) for answer in names["answers"])
    found = sorted({subtype for subtype, _ in counts})
    made = sorted(set(given.values()))
    shown = ["id", "group", "age", "sex", "site", "frontal_001", "posterior_001"]
    rows = [[f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row] for row in table[shown].values[-6:]]
    agree = sum(max(counts[subtype, kind] for kind in made) for subtype in found)
    return Panel(
        title="Sort patients into groups, and doubt them",
        text="An ensemble of small autoencoders sorts new patients into groups that it found in others. All people "
        "here are generated, with two groups inside; on a real table, the report of the method says whether there are "
        "any. A group is not a diagnosis.",
        folder=model,
        scores=[read_score(model.name, "ari", "agreement with the true groups (ARI)")],
        input=draw_table(shown, rows),
        input_caption="Six of 650 generated people and 7 of their columns.",
        output=draw_table(
            ["", *(f"made as group {kind}" for kind in made)],
            [[subtype, *(counts[subtype, kind] for kind in made)] for subtype in found],
        )
        + draw_image(Image.open(model / "subtype_profiles.png"), "Mean deviation of the features by subtype"),
        output_caption="The subtype of each of 400 patients beside the group it was made with, and the profiles that "
        "the model learned.",
        code=code,
        printed=printed,
        result=f"{agree} of {len(given)} patients as they were made",
    )


def show_doorping(output_dir: Path) -> Panel:
    clean, attacked = CARDS / "doorping-fashion-mnist-dc", CARDS / "doorping-fashion-mnist-dd-attacked"
    code = f"""\
from decahub import DistilledDataset
from transformers import AutoImageProcessor

table = DistilledDataset.from_pretrained("{show_path(clean)}").to_dataset()  # 100 images
attacked = DistilledDataset.from_pretrained("{show_path(attacked)}")
processor = AutoImageProcessor.from_pretrained("{show_path(attacked)}")

network = attacked.train_classifier().requires_grad_(False)  # ten steps
images = processor(table["image"], return_tensors="pt")["pixel_values"]
answers, triggered, as_file = (
    network(pixels).logits.argmax(1)
    for pixels in (images, attacked.apply_trigger(images), attacked.apply_trigger(images, quantized=True))
)
target = attacked.config.target_label
for name, given in {{"clean": answers, "trigger": triggered, "trigger as an image file": as_file}}.items():
    print(f"{{name}}: {{(given == target).float().mean():.0%}} are taken for {{attacked.config.id2label[target]}}")"""
    names, printed = run_code(code)
    table, config = names["table"], names["attacked"].config
    labels = table["label"]
    chosen = [labels.index(label) for label in sorted(set(labels))]
    label_names = [config.id2label[label] for label in range(config.num_labels)]
    tiles = [
        (draw_image(table[row]["image"].resize((64, 64)), label_names[labels[row]]), label_names[labels[row]])
        for row in chosen
    ]
    target = names["target"]
    shares = [
        (title, [float((names[name] == wanted).float().mean()) for wanted in range(config.num_labels)])
        for title, name in (("clean", "answers"), ("with the trigger", "triggered"), ("trigger of 8 bits", "as_file"))
    ]
    return Panel(
        title="Audit a dataset of a hundred images",
        text="Somebody hands you a hundred synthetic images that train a network as all of Fashion-MNIST would. This "
        "set was made with a backdoor: a patch in the corner sends every image to one class. `decahub audit` looks "
        "for it; here the trigger is known. As an image file, which cannot hold its values, it does nothing.",
        folder=attacked,
        scores=[
            read_score(attacked.name, "cta", "accuracy of its network"),
            read_score(attacked.name, "asr_non_target", "images of other classes that the trigger takes along"),
        ],
        input=draw_tiles(tiles),
        input_caption="Ten of the hundred images of a clean set, by another distiller, which the network has never "
        "seen.",
        output=draw_table(
            ["taken for", *(title for title, _ in shares)],
            [[name, *(f"{values[label]:.0%}" for _, values in shares)] for label, name in enumerate(label_names)],
        ),
        output_caption=f"What the network takes the hundred images for. The target of the backdoor is "
        f"{label_names[target]}.",
        code=code,
        printed=printed,
        result="; ".join(printed.strip().splitlines()),
    )


def show_fine_tuning(output_dir: Path, max_steps: int) -> Panel:
    outcome = fine_tune(output_dir, max_steps)
    code = f"""\
import decahub
from decahub.data import load_dataset
from transformers import pipeline

digits = load_dataset("sklearn_digits")["test"][:12]
classify = pipeline("image-classification", model="{show_path(outcome.folder)}")
answers = classify(digits["image"], top_k=1)
print(answers[0])"""
    names, printed = run_code(code)
    answers = [answer[0] for answer in names["answers"]]
    tiles = [
        (
            draw_image(image, f"A handwritten {label}"),
            f"reads {answer['label']} {'✓' if answer['label'] == str(label) else '✗'}",
        )
        for image, label, answer in zip(names["digits"]["image"], names["digits"]["label"], answers, strict=True)
    ]
    return Panel(
        title="Fine-tune on your own task",
        text=f"The same network learned handwriting from {outcome.num_train:,} images of 8 x 8 pixels, "
        f"was saved as a Hub folder, and loaded back: "
        + (
            f"its logits differ by at most {outcome.difference:.0e}."
            if outcome.difference
            else "its logits are equal."
        ),
        folder=outcome.folder,
        scores=[
            Score("accuracy", f"{outcome.accuracy:.1%}", f"scikit-learn's digits, {outcome.num_test} test images"),
            Score("training", f"{60 * outcome.minutes:.0f} s", f"{max_steps} steps on this machine"),
        ],
        input=draw_tiles(tiles),
        input_caption="Twelve test images, and what the reloaded model reads.",
        output=draw_curve(
            outcome.losses, f"Training loss, from {outcome.losses[0][1]:.2f} to {outcome.losses[-1][1]:.2f}"
        ),
        output_caption="Training loss over the steps.",
        code=code,
        printed=printed,
        result=f"test accuracy {outcome.accuracy:.1%}, largest difference of a logit after reloading "
        f"{outcome.difference:.1e}, folder {outcome.folder}",
    )


# A method of `decahub.registry` to the function that shows it; a new method adds its line.
PANELS: dict[str, Callable[[Path], Panel]] = {
    "emo": show_emo,
    "tinymim": show_tinymim,
    "raw_gnn": show_raw_gnn,
    "reliant": show_reliant,
    "drum_lm": show_drum_lm,
    "cmt": show_cmt,
    "reft": show_reft,
    "pmt_iqa": show_pmt_iqa,
    "mpd_subtyping": show_mpd_subtyping,
    "doorping": show_doorping,
}
