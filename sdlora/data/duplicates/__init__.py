"""Which images show the same: fingerprints, an index that finds likely pairs, and the comparison that decides."""
