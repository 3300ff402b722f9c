"""Converters from the authors' checkpoints to decahub folders.

Every `convert_<method>.py` is a script and exposes two pure functions, `convert_state_dict(official, config)` and
`revert_state_dict(ours, config)`; what they share lies in the other files.
"""
