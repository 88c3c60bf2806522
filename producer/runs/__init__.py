"""A run: an input file, its output file, and the batches between them."""
