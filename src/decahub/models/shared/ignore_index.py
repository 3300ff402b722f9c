"""Labels that count for nothing."""

IGNORED_CLASS = -100  # torch's own default, for images and nodes
IGNORED_PIXEL = 255  # the highest value of an 8-bit segmentation map
