"""torch's DistributedDataParallel in a plain loop: what one block with several replicas must equal."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.optimizer import build_optimizer
from greedypipe.workers.data.source import BatchSource


def train_with_ddp(overrides: Sequence[str], num_processes: int, folder: Path) -> dict[str, Tensor]:
    """Parameters and statistics after the run's steps; every process takes its rows of each batch."""
    context = multiprocessing.get_context("forkserver")
    ranks = [
        context.Process(target=_rank, args=(list(overrides), rank, num_processes, folder)) for rank in range(num_processes)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    return torch.load(folder / "ddp.pt")


def _rank(overrides: list[str], rank: int, num_processes: int, folder: Path) -> None:
    torch.set_num_threads(1)
    plan = make_plan(load_config(None, overrides), num_processes)
    store = dist.FileStore(str(folder / "ddp-store"), num_processes)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=num_processes)
    network = _network(plan)
    model = DistributedDataParallel(network)
    optimizer = build_optimizer(plan.config.optimizer, list(network.parameters()))
    source = BatchSource(plan.config.data, plan.config.training.seed)
    for batch_id in range(plan.blueprint.total_steps):
        batch = source.training_batch(batch_id)
        images, labels = (part.chunk(num_processes)[rank] for part in (batch.images, batch.labels))
        loss = functional.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    if rank == 0:
        layers = [*plan.blueprint.network.layers, plan.blueprint.network.classifier]
        state = {layer.qualified(key): value for layer in layers for key, value in layer.module.state_dict().items()}
        torch.save(state, folder / "ddp.pt")
    dist.destroy_process_group()


def _network(plan: Plan) -> nn.Sequential:
    network = plan.blueprint.network
    return nn.Sequential(*(layer.module for layer in network.layers), network.classifier.module).to(
        memory_format=torch.channels_last
    )
