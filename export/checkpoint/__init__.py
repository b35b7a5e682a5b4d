"""Checkpoints as people have them, read into one form and written as one folder.

Readers make a `Checkpoint` of a diffusers folder, a hub id or a single file; LoRAs, embeddings and
other autoencoders make a new one of it; `write.py` streams it into a diffusers folder, one tensor
at a time. Nothing here holds a network's weights in memory.
"""
