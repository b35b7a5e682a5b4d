"""The samplers, one module a family; `registry.py` names them and `engine/sampling.py` calls them.

Every sampler is linear in the latents, the model's outputs and the noise, so it is a function that
writes its evaluations as matrices. A new one is a function of the same signature, a line in the
registry and a line in `engine/sampler_names.py`; one that keeps history starts it anew at its
first evaluation.

Symbols follow the papers: latents at a noise level are alpha · x0 + sigma · eps, with
alpha² + sigma² = 1, or alpha = 1 in the samplers of k-diffusion.
"""
