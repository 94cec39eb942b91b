"""What was found, as plain values: scores, duels, decisions, comparisons. Read and written as JSON."""
