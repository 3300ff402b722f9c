"""`decahub audit`: look for a backdoor in a distilled dataset."""

import argparse
import sys
from pathlib import Path


HELP = "train networks on a distilled dataset and look for a backdoor in them"
EXAMPLES = """  decahub audit model_cards/doorping-fashion-mnist-dd-attacked --dataset fashion_mnist
  decahub audit suspicious/set --dataset cifar10 --control clean/set --architectures own alexnet resnet18
  decahub audit suspicious/set --dataset my_folder --defenses neural_cleanse strip --limit 1000"""
REPORT_FILES = ("audit.html", "audit.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("distilled", help="folder or Hub repository of the distilled dataset")
    parser.add_argument("--dataset", required=True, help="real images to test with: a name, or your own folder")
    parser.add_argument("--data-dir", help="folder of the datasets; default: $DECAHUB_DATA_DIR, then the Hub")
    parser.add_argument("--split", default="test", help="split to test with (default: test)")
    parser.add_argument("--limit", type=int, help="test with a sample of this many images")
    parser.add_argument("--control", help="a clean set of the same recipe, to tell a backdoor from a strong patch")
    parser.add_argument("--architectures", nargs="+", default=["own"], help="networks to train (default: own)")
    parser.add_argument("--num-networks", type=int, default=1, help="networks of each architecture (default: 1)")
    parser.add_argument("--defenses", nargs="*", help="names of defenses (default: all); none: only measure")
    parser.add_argument("--epochs", type=int, help="epochs of training, for DC and DSA (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first networks (default: 0)")
    parser.add_argument("--output-dir", default="audit", help="folder of audit.html and audit.json (default: audit)")
    parser.add_argument("--overwrite", action="store_true", help="replace the report that is in the folder")


def run(arguments: argparse.Namespace) -> int:
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"`--limit` must be at least 1; got {arguments.limit}.")
    check_output_dir(Path(arguments.output_dir), arguments.overwrite)
    from decahub.evaluation.defenses import DEFENSES
    from decahub.procedures.doorping_audit import audit_distilled_dataset

    report = audit_distilled_dataset(
        arguments.distilled,
        arguments.dataset,
        control=arguments.control,
        data_dir=arguments.data_dir,
        split=arguments.split,
        limit=arguments.limit,
        architectures=arguments.architectures,
        num_networks=arguments.num_networks,
        defenses=tuple(DEFENSES) if arguments.defenses is None else arguments.defenses,
        epochs=arguments.epochs,
        seed=arguments.seed,
        announce=lambda text: print(text, file=sys.stderr),
    )
    page = report.save(arguments.output_dir)
    print(report.to_markdown())
    print(f"Wrote {page}")
    return 0


def check_output_dir(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that the report cannot be written to, before networks are trained."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"`--output-dir` must be a folder; got the file {str(folder)!r}.")
    for name in REPORT_FILES if not overwrite else ():
        if (folder / name).exists():
            raise FileExistsError(
                f"`{folder / name}` exists already. Choose another `--output-dir`, or replace it with `--overwrite`."
            )
