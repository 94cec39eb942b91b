"""Low-rank adapters: settings, attachment, saving, loading, merging.

Source: Hu et al. 2021, arXiv:2106.09685: W' = W + (alpha / rank) B A, with A (rank, in) and B (out, rank).
"""
