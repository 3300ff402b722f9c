"""The page on your own data: its files are built as its trees show, its code and commands run in its order."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from decahub import DrumLmProcessor
from decahub.cli.main import main
from decahub.models.drum_lm.midi.codec import DrumRoll
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.instances import write_coco_folder


ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "your_own_data.md"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
# What makes a run of a test short; what is trained stays what the recipe says.
QUICK = ["--max_steps", "1"]
SMALL_BATCHES = ["--per_device_train_batch_size", "2", "--per_device_eval_batch_size", "2"]
ONE_GRAPH = ("raw_gnn/", "reliant/")  # a graph is a batch
SIZES = {
    "emo/segment": ["--augmentation", "{crop_size: [64, 64], shortest_edge: 64}"],
    "drum_lm/small": ["--augmentation", "{bars: 4}"],
    "reft/refshapes": ["--warmup_steps", "0"],
}


def list_files(tree):
    """Paths of the files in a tree, whose folders end in a slash."""
    folders, files = [], []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [line.strip()]
        if not line.endswith("/"):
            files.append("".join(folders))
    return files


def write_midi(path, bars, time_signature=(4, 4), notes=None):
    """Kick and snare in turn; `notes` are their pitches in a kit of your own."""
    processor = DrumLmProcessor(build_line_tokenizer(), tokenization="line")
    steps = 16 if time_signature == (4, 4) else 12
    hits = np.zeros((bars * steps, 6), dtype=bool)
    hits[::4, 3] = hits[2::4, 2] = True
    content = processor.to_midi(DrumRoll(hits, steps, time_signature))
    for old, new in (notes or {}).items():
        content = re.sub(rb"([\x89\x99])" + re.escape(bytes([old])), rb"\1" + bytes([new]), content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_file(path, generator):
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.stem.endswith("_mask"):
        mask = np.zeros((48, 64), dtype=np.uint8)
        mask[10:30, 20:50] = 255
        Image.fromarray(mask).save(path)
    elif path.suffix == ".mid":
        write_midi(path, bars=4)
    elif path.parent.name == "annotations":
        ids = Image.fromarray(generator.choice(np.array([0, 1, 2, 255], dtype=np.uint8), (48, 64)))
        ids.putpalette([10, 20, 30] * 256)
        ids.save(path)
    elif path.suffix == ".png":
        Image.fromarray(generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)


def write_named_in_text(folder):
    """What the commands name and no tree shows."""
    for split in ("train", "validation", "test"):
        write_midi(folder / "loops" / split / "1.mid", bars=2)
        write_midi(folder / "single" / split / "1.mid", bars=1)
        write_midi(folder / "kit" / split / "1.mid", bars=4, notes={36: 60, 38: 62})
    write_midi(folder / "waltz.mid", bars=3, time_signature=(6, 8))
    write_coco_folder(folder / "shapes")
    (folder / "people").mkdir()
    number = np.arange(24)
    nodes = {"label": number // 2 % 2, "sensitive": number % 2, "age": number / 24, "debt": number[::-1] / 24}
    split = np.repeat(["train", "validation", "test"], 8)
    pd.DataFrame({**nodes, "split": split}).to_csv(folder / "people" / "nodes.csv", index=False)
    pd.DataFrame({"source": number[:-1], "target": number[1:]}).to_csv(folder / "people" / "edges.csv", index=False)


def run_command(words):
    if words[0] == "train":
        batches = [] if words[1].startswith(ONE_GRAPH) else SMALL_BATCHES
        words = [*words, *QUICK, *batches, *SIZES.get(words[1], [])]
    assert main(words) == 0, shlex.join(words)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """The folder in which the whole page was run."""
    folder, generator, names = tmp_path_factory.mktemp("own"), np.random.default_rng(0), {}
    (folder / "model_cards").symlink_to(ROOT / "model_cards")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DECAHUB_DATA_DIR", raising=False)
        write_named_in_text(folder)
        for kind, title, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            if kind == "text":
                for name in list_files(code):
                    write_file(folder / name, generator)
            elif kind == "csv":
                (folder / title).write_text(code)
            elif kind == "python":
                exec(code, names)
            else:
                assert kind == "bash"
                for line in code.replace("\\\n", " ").splitlines():
                    program, *words = shlex.split(line, comments=True)
                    assert program == "decahub"
                    run_command(words)
        yield folder


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_classes_are_those_of_the_folders_and_of_the_table(workplace):
    for name, classes in (("flowers", ["daisy", "rose"]), ("birds", ["finch", "heron"])):
        config = read_json(workplace / "runs" / name / "model" / "config.json")
        assert list(config["id2label"].values()) == classes


def test_answers_are_written_as_tables(workplace):
    with (workplace / "flowers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["5.png", "5.png", "6.png", "6.png"]
    assert {row["image"]: row["class"] in ("finch", "heron") for row in read_json(workplace / "birds.json")} == {
        "3.png": True,
        "4.png": True,
    }
    assert [row["image"] for row in read_json(workplace / "photos.json")] == ["1.png", "2.png", "3.png"]


def test_maps_are_measured_and_written(workplace):
    assert (workplace / "masks" / "3_segmentation.png").is_file()
    with (workplace / "areas.csv").open(newline="") as file:
        assert sum(float(row["area"]) for row in csv.DictReader(file)) == pytest.approx(1)


def test_instances_are_found(workplace):
    assert len(list((workplace / "kites").glob("*_instances.png"))) == 4
    assert (workplace / "kites.csv").read_text().startswith("image,class,score,box")
    for path in (workplace / "found").glob("*_instances.json"):
        assert {instance["label"] for instance in read_json(path)} <= {"cup", "fork"}
    assert (workplace / "memory" / "support_memory.safetensors").is_file()


def test_grooves_are_continued(workplace):
    continued = sorted(path.name for path in (workplace / "continued").glob("*.mid"))
    assert continued == ["1_continued.mid", "4_continued_seed1.mid", "waltz_continued.mid"]


def test_frames_are_answered_and_drawn(workplace):
    with (workplace / "boxes.csv").open(newline="") as file:
        assert {row["frame"] for row in csv.DictReader(file)} == {"2.json"}
    assert Image.open(workplace / "drawings" / "2_boxes.png").width > 700
    assert read_json(workplace / "runs" / "frames" / "model" / "evaluation.json")["task"] == "object-detection-3d"


def test_graphs_of_all_forms_are_answered(workplace):
    rows = read_json(workplace / "graph.json")
    assert [row["node"] for row in rows] == list(range(6))
    assert all(isinstance(row["probability"], float) for row in rows)
    assert (workplace / "answers" / "graph_predictions.csv").read_text().startswith("node,class,probability")
    with (workplace / "papers.csv").open(newline="") as file:
        assert [row["node"] for row in csv.DictReader(file)] == ["eve", "fay"]


# What the page says is refused, and the tests of decahub.data do not look at through a command


def change(workplace, name, path, content):
    """A copy of a folder with one file replaced, or removed."""
    folder = workplace / "changed" / name
    shutil.copytree(workplace / name, folder, dirs_exist_ok=True)
    (folder / path).unlink()
    if content is not None:
        (folder / path).write_bytes(content)
    return folder


SEGMENT = ["emo/segment", "--monitor_split", "test", "--label_names", "road", "car", "sky"]
REFUSED = {
    "damaged image": (["emo/cifar10"], "flowers", "test/daisy/5.png", b"no", r"the first is row 0 \(5.png\)"),
    "no label": (
        ["emo/cifar10"],
        "birds",
        "train/metadata.csv",
        b"file_name\n1.png\n",
        "`label` is missing|different",
    ),
    "no class": (
        ["emo/cifar10"],
        "birds",
        "train/metadata.csv",
        b"file_name,label\n1.png,\n2.png,a\n",
        "None in row 0",
    ),
    "no file": (
        ["emo/cifar10"],
        "birds",
        "train/metadata.csv",
        b"file_name,label\n7.png,heron\n2.png,finch\n",
        r"train/7\.png",
    ),
    "no map": (SEGMENT, "streets", "train/annotations/1.png", None, r"the first is .*annotations/1\.png"),
    "no instances": (["reft/refshapes"], "shapes", "train.json", b"{}", r"train\.json must be a COCO file"),
    "no scene": (["reft/refshapes"], "shapes", "test/3.png", None, r"the first is '3\.png'"),
    "no groove": (["drum_lm/small"], "grooves", "test/4.mid", b"no", "must hold a groove"),
    "no split": (["drum_lm/small"], "loops", "test/1.mid", None, "`eval_split` must be one of train, validation"),
    "no edges": (["raw_gnn/texas", "--split", "0"], "papers", "edges.csv", None, r"edges\.csv` must be the table"),
}


@pytest.mark.parametrize(("recipe", "name", "path", "content", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(workplace, recipe, name, path, content, message, capsys):
    folder = change(workplace, name, path, content)
    try:
        words = ["--dataset", str(folder), "--card_license", "mit", "--output_dir", str(folder / "run")]
        assert main(["train", *recipe, *words, *QUICK, *SIZES.get(recipe[0], [])]) == 2
        assert not list(folder.rglob("model.safetensors"))
    finally:
        shutil.rmtree(folder)

    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("decahub train: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0])


def test_refuses_a_groove_in_parts_that_the_model_cannot_read(workplace, capsys):
    words = ["predict", "model_cards/drum-lm-small-groove"]

    assert main([*words, "loops/test/1.mid", "kit/test/1.mid", "--bars", "4", "--output-dir", "refused"]) == 1
    assert main([*words, "kit/test/1.mid", "--pitch-map", "60=bass", "--output-dir", "bass"]) == 2
    assert main([*words, "waltz.mid", "--time-signature", "4/4", "--output-dir", "refused"]) == 2

    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("decahub predict: ")]
    assert "must have pitches of the map; got 62 (16 times), 60 (16 times)" in errors[0]
    assert "`--pitch-map` must map pitches" in errors[1]
    assert "`--time-signature` must be that of the groove, 6/8" in errors[2]


def test_refuses_data_without_a_license(workplace, capsys):
    assert main(["train", "emo/cifar10", "--dataset", "flowers"]) == 2

    assert "`card_license` must be given" in capsys.readouterr().err
