"""Imported for its effect: whatever this process, or a child of a fork server that has it, computes on a GPU is repeatable.

Equal bits of two runs need more than that: the same model of GPU, the same versions, batches of the same rows.
"""

import os

# Read when the context is made.
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"

import torch

torch.use_deterministic_algorithms(True)
torch.backends.cudnn.deterministic = True
torch.backends.cudnn.benchmark = False
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
