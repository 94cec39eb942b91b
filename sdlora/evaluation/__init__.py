"""Score base, champion and candidate on the same prompts, seeds and held-out images, and decide between them."""
