"""Pickles, which can run code when they are read: refused, and converted in a sandbox.

`convert.py` is what others call; `worker.py` is the process that reads one.
"""
