"""One optimiser step: which weights learn, by which loss, at which rate, in how many passes."""
