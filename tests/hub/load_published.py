"""Loads published models by their ids through every Auto class, and writes down what came.

python load_published.py CLASSIFIER SEGMENTER IMAGE OUTPUT_DIR [--without-decahub]
"""

import json
import sys
from pathlib import Path


def describe(thing) -> dict[str, str]:
    return {"class": type(thing).__name__, "module": type(thing).__module__}


def main(classifier_id: str, segmenter_id: str, image: str, output_dir: Path, without_decahub: bool) -> None:
    if without_decahub:
        sys.modules["decahub"] = None  # any import of it now fails, as if it were not installed
    else:
        import decahub  # noqa: F401
    # Only now: decahub must be there, or not, before transformers is.
    import torch
    from PIL import Image
    from safetensors.torch import save_file
    from transformers import (
        AutoBackbone,
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForImageClassification,
        AutoModelForSemanticSegmentation,
        pipeline,
    )

    trust = {"trust_remote_code": without_decahub}
    image = Image.open(image)
    loaded = {
        "AutoConfig": AutoConfig.from_pretrained(classifier_id, **trust),
        "AutoModel": AutoModel.from_pretrained(classifier_id, **trust),
        "AutoBackbone": AutoBackbone.from_pretrained(classifier_id, out_indices=(1, 3), **trust),
        "AutoImageProcessor": AutoImageProcessor.from_pretrained(classifier_id, **trust),
        "AutoImageProcessor with PIL": AutoImageProcessor.from_pretrained(classifier_id, backend="pil", **trust),
        "AutoModelForImageClassification": AutoModelForImageClassification.from_pretrained(classifier_id, **trust),
        "AutoModelForSemanticSegmentation": AutoModelForSemanticSegmentation.from_pretrained(segmenter_id, **trust),
    }
    inputs = loaded["AutoImageProcessor"](image, return_tensors="pt")
    with torch.inference_mode():
        tensors = {
            "pixel_values": inputs["pixel_values"],
            "pooler_output": loaded["AutoModel"](**inputs).pooler_output,
            "feature_map": loaded["AutoBackbone"](**inputs).feature_maps[1],
            "class logits": loaded["AutoModelForImageClassification"](**inputs).logits,
            "pixel logits": loaded["AutoModelForSemanticSegmentation"](**inputs).logits,
        }
    answers = {
        "image-classification": pipeline("image-classification", model=classifier_id, **trust)(image),
        # No task: the server's `pipeline_tag`, which comes from the card, decides.
        "task of the classifier": pipeline(model=classifier_id, **trust).task,
        "task of the segmenter": (segmenter := pipeline(model=segmenter_id, **trust)).task,
        "image-segmentation": [(part["label"], part["mask"].size) for part in segmenter(image)],
    }
    facts = {"loaded": {name: describe(thing) for name, thing in loaded.items()}, "answers": answers}
    (output_dir / "facts.json").write_text(json.dumps(facts))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, output_dir / "tensors.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:4], Path(sys.argv[4]), without_decahub="--without-decahub" in sys.argv)
