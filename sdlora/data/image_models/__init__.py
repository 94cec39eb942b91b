"""Optional image models: captioning and scores of unsafe content."""
