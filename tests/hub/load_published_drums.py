"""Loads a published drum model by its id, runs the lines of its card, and writes down what came.

python load_published_drums.py MODEL GROOVE OUTPUT_DIR [--base FOLDER] [--without-decahub]
"""

import argparse
import json
import os
import re
import shutil
import sys
from pathlib import Path


SEED = 29  # of the card's lines for decahub
OPTIONAL = ("peft", "symusic", "PIL")  # what a model without adapters must do without where decahub is not installed


def describe(thing) -> dict[str, str]:
    return {"class": type(thing).__name__, "module": type(thing).__module__}


def read_card_code(card: str, without_decahub: bool) -> str:
    """The lines of a published card, for those who have decahub or for those who have not."""
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", Path(card).read_text(), re.DOTALL)
        if ("import decahub" not in block) == without_decahub
    )
    return code


def seed_generation() -> None:
    """Lets each call of `generate` draw alike, whatever was drawn before."""
    import torch
    from transformers import GenerationMixin

    generate = GenerationMixin.generate

    def generate_seeded(*args, **kwargs):
        torch.manual_seed(SEED)
        return generate(*args, **kwargs)

    GenerationMixin.generate = generate_seeded


def main(model_id: str, groove: Path, output_dir: Path, base: str | None, without_decahub: bool) -> None:
    if without_decahub:
        # Any import of these now fails, as if they were not installed.
        sys.modules.update(dict.fromkeys(["decahub", *([] if base else OPTIONAL)]))
    else:
        import decahub  # noqa: F401
    # Only now: decahub must be there, or not, before transformers is.
    import torch
    from huggingface_hub import hf_hub_download
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor

    trust = {"trust_remote_code": without_decahub}
    base_model = {"base_model": base} if base else {}
    loaded = {
        "AutoConfig": AutoConfig.from_pretrained(model_id, **trust),
        "AutoProcessor": AutoProcessor.from_pretrained(model_id, **trust),
        "AutoModelForCausalLM": AutoModelForCausalLM.from_pretrained(model_id, **base_model, **trust),
    }
    inputs = loaded["AutoProcessor"](str(groove), return_tensors="pt")
    with torch.inference_mode():
        logits = loaded["AutoModelForCausalLM"](**inputs).logits
    save_file({"input_ids": inputs["input_ids"], "logits": logits}, output_dir / "tensors.safetensors")
    facts = {name: describe(thing) for name, thing in loaded.items()}
    facts["base"] = loaded["AutoModelForCausalLM"].backbone.name_or_path
    (output_dir / "facts.json").write_text(json.dumps(facts))

    shutil.copyfile(groove, output_dir / "groove.mid")
    os.chdir(output_dir)
    if base is not None:
        Path("base").symlink_to(base)  # the adapters know the name of their base and no path to it
    seed_generation()
    exec(read_card_code(hf_hub_download(model_id, "README.md"), without_decahub), {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model_id")
    parser.add_argument("groove", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--base")
    parser.add_argument("--without-decahub", action="store_true")
    main(**vars(parser.parse_args()))
