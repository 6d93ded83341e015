# %% [markdown]
# # greedypipe in a notebook
# Trains a small network on handwritten digits, one process per stage, and looks at what each block has learned.

# %%
import torch

import greedypipe

# A YAML file or its content; keys that are left out have their defaults (`greedypipe train --help` lists them all).
run = greedypipe.train(
    {
        "data": {"name": "digits"},
        "model": {"name": "vgg8b", "width": 0.1},
        "partition": {"blocks": 3},
        "optimizer": {"lr": 0.05},
        "training": {"epochs": 2},
        "logging": {"interval_steps": 5},
    },
    stages=2,
)

# %%
print(run, run.summary["accuracy"])
print(len(run.metrics()), "records of training steps: rows, or a pandas.DataFrame where pandas is installed")

# %% [markdown]
# ## The network
# An ordinary `nn.Sequential` with the layers' names; images are normalised as in training.

# %%
network = run.network()
images, labels = next(run.test_batches())
with torch.no_grad():
    right = (network(images).argmax(1) == labels).double().mean()
print([name for name, _ in network.named_children()], f"accuracy of a batch {right:.3f}")

# %% [markdown]
# ## What each block knows
# Every block has learned with a head of its own, so a prediction can be read at any of them.

# %%
for block, (head, logits) in enumerate(zip(run.heads(), run.exits(images), strict=True)):
    print(f"exit {block}: accuracy {(logits.argmax(1) == labels).double().mean():.3f}, head {type(head).__name__}")

# %%
conv3 = run.features(images, "conv3")
print(f"conv3: {tuple(conv3.shape)}, mean {conv3.mean():.3f}")
