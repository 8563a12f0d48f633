"""Relax and TIR as data: read, rewritten, run and printed, at any stage of a pipeline."""
