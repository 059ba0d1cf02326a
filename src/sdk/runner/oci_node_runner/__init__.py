"""Serves a function of uploaded code over HTTP, in the image's own Python: the standard library and nothing else."""
