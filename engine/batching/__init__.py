"""Frames of many jobs in one batch: who is next, in which slot, and in which order they leave."""
