"""What of a machine one of several processes takes: a GPU of its own, or some of the processor's threads."""

from __future__ import annotations

from dataclasses import dataclass

from loopserve_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Share:
    """The device by name, as --device takes it, and how many threads torch computes with."""

    device: str
    threads: int

    def take(self) -> None:
        """Have this process compute there. Kernels are launched on the current GPU, whichever holds the tensors."""
        import torch

        torch.set_num_threads(self.threads)
        if self.device.startswith("cuda:"):
            torch.cuda.set_device(self.device)


def shares(device: str, workers: int) -> list[Share]:
    """One share for each worker of this machine, on the device that was asked for: auto, cpu or cuda.

    A GPU each, from the first on; without one the threads are split. Raises UsageError for more workers than GPUs.
    """
    import torch

    threads = max(1, torch.get_num_threads() // workers)
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    if not gpus and device != "cuda":
        return [Share("cpu", threads)] * workers
    if workers > gpus:
        what = "no GPU" if not gpus else f"{gpus} GPU{'s' if gpus > 1 else ''}"
        mend = f"give --workers {gpus}" if gpus else "give --device cpu"
        raise UsageError(f"--workers {workers} takes a GPU for each, but torch sees {what}; {mend}")
    return [Share(f"cuda:{number}", threads) for number in range(workers)]
