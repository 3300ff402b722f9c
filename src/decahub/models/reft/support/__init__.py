"""Support of classes: shots, what the model makes of them, and the memory that keeps it."""
