"""Optimum's ONNX folders, both ways: read into a model folder, and written beside one's graphs.

`giffusion export` calls `read.export_optimum` for a folder that Optimum made and
`write.write_optimum` for `--optimum`. Files and tensors are named as Optimum names them
(https://huggingface.co/docs/optimum-onnx), so its pipelines open what is written here.
"""
