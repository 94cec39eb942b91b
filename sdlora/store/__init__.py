"""Image database: records and bytes of every image, in one folder that can be moved."""
