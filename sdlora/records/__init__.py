"""What was found, as plain values that are written once and read by many.

Training and evaluation write them; reports, model cards, trackers and the person who approves read them. They hold no
tensors and no absolute paths, and survive the way through JSON unchanged.
"""
