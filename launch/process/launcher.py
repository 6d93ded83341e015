"""What a launcher has set for this process, what is wrong where that was another one than torchrun, and what torch is told.

Imports nothing heavy: `greedypipe train` asks before it imports torch.
"""

import os
from collections.abc import Iterator

NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
COPIES = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""How many copies of a command srun or mpirun has started."""
HOW_TO_START = "start with torchrun or `greedypipe train`, or unset what another launcher has left"

NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"


def count_gpus_without_driver() -> None:
    """Has torch ask NVML whether there are GPUs, in this process and those that it starts, wherever anything asks torch.

    By default torch starts the driver to find out, and children of a process that has done so cannot use a GPU: a fork
    server and a keeper would have none. What a user has set stays.
    """
    os.environ.setdefault(NVML_CHECK, "1")


def problem() -> str:
    """What is wrong with the environment of a rank, in one line; empty where nothing is."""
    return next((text for text in (copies(), *_wrong_numbers(), *_incomplete()) if text), "")


def copies() -> str:
    """Why this process is one of several equal ones, which would each make a run of its own; empty where it is not."""
    if "RANK" in os.environ:
        return ""
    counts = [(name, os.environ.get(name, "")) for name in COPIES]
    if os.environ.get("SLURM_PROCID", "0") != "0":
        counts.append(("SLURM_NTASKS", os.environ.get("SLURM_NTASKS", "")))
    for name, count in counts:
        if count.isdigit() and int(count) > 1:
            return (
                f"{name}={count} without RANK: this command was started {count} times; start torchrun once per host instead"
            )
    return ""


def remark() -> str:
    """What may surprise whoever has asked a scheduler for several tasks; empty where nothing does."""
    tasks = os.environ.get("SLURM_NTASKS", "")
    if "RANK" in os.environ or not tasks.isdigit() or int(tasks) < 2:
        return ""
    return f"SLURM_NTASKS={tasks}, but RANK is not set: this is a run of one process; {HOW_TO_START}"


def _wrong_numbers() -> Iterator[str]:
    for name in NUMBERS:
        text = os.environ.get(name, "0")
        if not (text.isascii() and text.isdigit()):
            yield f"{name}: got {text!r}, allowed: a whole number; {HOW_TO_START}"
            return
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if rank >= size and {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        yield f"RANK: got {rank}, allowed: below WORLD_SIZE={size}; {HOW_TO_START}"


def _incomplete() -> Iterator[str]:
    """What is missing where some of the variables are set."""
    given = [f"{name}={os.environ[name]}" for name in NUMBERS[:3] if name in os.environ]
    if not given or given == ["WORLD_SIZE=1"]:
        return
    is_alone = os.environ.get("WORLD_SIZE") == "1" and "TORCHELASTIC_USE_AGENT_STORE" not in os.environ
    needed = ("RANK", "WORLD_SIZE") if is_alone else ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in needed if name not in os.environ]:
        yield f"{', '.join(given)} without {', '.join(missing)}; {HOW_TO_START}"
