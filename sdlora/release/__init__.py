"""Files that a version ships with: a report page, a model card, and one folder that holds everything."""
