"""What people add to a checkpoint: LoRAs, fused into its weights, and textual inversions.

`lora.py` and `embeddings.py` are what others call; each makes another checkpoint of one, lazily.
"""
