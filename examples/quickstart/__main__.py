"""A first walk through decahub, in less than a minute on two CPU cores.

    make quickstart

Runs a published model of each method on a small sample, fine-tunes one of them, and writes a page that shows it all.
Nothing is downloaded.
"""

import argparse
import os
import time
from pathlib import Path


# Nothing here needs a network.
os.environ["HF_HUB_OFFLINE"] = "1"

from datasets import disable_progress_bars
from page import write_page
from panels import PANELS, PROJECT, show_fine_tuning
from transformers.utils import logging


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=PROJECT / "out" / "quickstart", help="where results go")
    parser.add_argument("--max_steps", type=int, default=200, help="optimizer steps of the fine-tuning")
    return parser.parse_args()


def main():
    options = parse_options()
    output_dir = options.output_dir.resolve()
    output_dir.mkdir(parents=True, exist_ok=True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    started = time.monotonic()

    panels = {}
    for name, show in PANELS.items():
        print(f"{name:10} ", end="", flush=True)
        panels[name] = show(output_dir)
        print(panels[name].result, flush=True)
    print("Fine-tuning EMO on scikit-learn's handwritten digits", flush=True)
    fine_tuning = show_fine_tuning(output_dir, options.max_steps)
    print(fine_tuning.result)

    seconds = time.monotonic() - started
    page = write_page(output_dir / "index.html", panels, fine_tuning, seconds)
    print(f"\nDone in {seconds:.0f} s. Open this page in a browser:\n{page.as_uri()}")


if __name__ == "__main__":
    main()
