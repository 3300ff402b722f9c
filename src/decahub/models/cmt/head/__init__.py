"""What turns feature maps into boxes: positions, decoder and task heads."""
