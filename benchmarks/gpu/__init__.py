"""The engine against diffusers on a GPU: `python -m benchmarks.gpu`.

`rows.py` says what is rendered and `columns.py` who renders it (`ours.py`, `peers.py`); `table.py`
measures them in turn.
"""
