"""Files of a released version: report page, model card, data page, and the folder that holds everything."""
