"""Low-rank adapters: attach, save, load, merge.

Source: Hu et al. 2021, arXiv:2106.09685: W' = W + (alpha / rank) B A, with A (rank, in) and B (out, rank).
"""
