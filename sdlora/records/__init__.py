"""Records of results as plain values: scores, duels, decisions, comparisons, choices.

Training and evaluation write records; reports, model cards, trackers and the approving person read them. A record holds
no tensors and no absolute paths, and is the same after a round trip through JSON.
"""
