"""Checkpoints to graphs: the only package, beside training, that imports torch and diffusers."""
