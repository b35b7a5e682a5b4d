"""The torch runtime: the modules that other runtimes' graphs are traced from, run by torch.

`runtime.py` is opened by entry point. On the CPU a stage is a `host.py` graph; on CUDA it is a
`graph.py` one, with its tensors at fixed addresses (`buffers.py`) and torch's streams, events and
captures behind `device.py`.
"""
