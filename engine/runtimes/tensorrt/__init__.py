"""TensorRT on NVIDIA GPUs: engines are built ahead, kept in a store, and run as CUDA graphs.

`package.py` hides which of NVIDIA's two packages is used, `build.py` turns a graph into an
engine, `store.py` keeps engines by what went into them, and `prepare.py` makes those that a model
lacks.
"""
