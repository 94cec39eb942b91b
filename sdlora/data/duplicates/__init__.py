"""Near-duplicate search: fingerprints, an index of likely pairs, and the comparison that decides."""
