"""Models that look at images, where a person asks for them: captions and unsafe content."""
