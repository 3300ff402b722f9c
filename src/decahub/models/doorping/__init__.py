"""DoorPing: networks, distilled datasets, distillers and attacks; import the classes from `decahub`."""
