"""Graphs on a CUDA device: fixed buffers, staged inputs, one captured launch a run.

`protocol.py` is CUDA as the rest sees it and `bindings.py` the real one; `resources.py` owns what
is made through it. `graph.py` is the `Graph` that runtimes hand to the engine: inputs come in
through `staging.py`, entries leave through `landing.py`, and frames that stay on the device are
read through `dlpack.py`.
"""
