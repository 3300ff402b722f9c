"""Reference Twice: few-shot instance segmentation on top of Mask2Former."""
