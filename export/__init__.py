"""Checkpoints to graphs: the only package that imports torch and diffusers."""
