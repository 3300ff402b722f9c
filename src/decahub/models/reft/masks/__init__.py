"""Masks as COCO encodes them, crops of support instances, and predictions as instances."""
