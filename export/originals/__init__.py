"""Single files in the original layout, read as a checkpoint.

`single_file.py` is what others call. Which family a file is of, and which published configuration
it has, is decided from its header; its weights get diffusers' names by rules of the configuration.
"""
