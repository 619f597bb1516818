"""The stages, in three parts, each with a time limit: what a machine is asked, cheapest first."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from loopserve_cli.errors import UsageError

PARTS = (1, 2, 3)
# A call of one part ends in this time: machines are lent for ten minutes at a time.
PART_S = 500


@dataclass(frozen=True, slots=True)
class Stage:
    """One process. `own` is what `bench` is asked by scale where it is one of its commands; else a module of ours.

    `limit_s` is the most it may take. `on` is the only kind of device that it has anything to do on, None for all.
    """

    name: str
    what: str
    part: int
    limit_s: float
    own: dict[str, str] = field(default_factory=dict)
    on: str | None = None

    def command(self, device: str, scale: str) -> list[str]:
        """The process's command line."""
        if self.own:
            words = self.own[scale].split()
            return [sys.executable, "-m", "loopserve_cli", "bench", *words, "--device", device, "--json"]
        return [sys.executable, "-m", "loopserve_cli.bench.device.alone", self.name, device, scale]


MODEL_8B = "--model random:Llama-3.1-8B"
STAGES = (
    Stage("environment", "the machine and its ceilings", 1, 40),
    Stage("launches", "launches and waits beside their budgets", 1, 40),
    Stage("tests", "the tests that need a GPU", 1, 280, on="cuda"),
    Stage("choosing", "choosing by part", 1, 100),
    Stage("costs", "the cost model's coefficients", 1, 40),
    Stage("attention", "attention by configuration", 2, 140),
    Stage("decode-attention", "reading keys", 2, 40),
    Stage(
        "kernels",
        "bench kernels",
        2,
        200,
        {
            "gpu": "kernels --no-coverage --budget 120 --rounds 3 --keys 8k,32k,128k --rows 512,8k,all",
            "cpu": "kernels --no-coverage --budget 90 --keys 4k,8k",
            "quick": "kernels --no-coverage --budget 5 --rounds 1 --keys 1k --rows all --density 10",
        },
    ),
    Stage("token", "one token: the GPU's time of the wall's", 2, 120),
    Stage(
        "decode",
        "bench decode",
        3,
        170,
        {
            "gpu": f"decode {MODEL_8B} --tokens 8k,32k,128k --rounds 2",
            "cpu": "decode --tokens 4k,8k --rounds 2",
            "quick": "decode --tokens 256 --new-tokens 19 --rounds 1 --profile full --profile loopserve",
        },
    ),
    Stage(
        "turns",
        "bench turns",
        3,
        190,
        {
            "gpu": f"turns {MODEL_8B} --profile full --profile loopserve-prefill --profile minference --tokens 32768 "
            "--new-tokens 8 --rounds 2 --turns 4",
            "cpu": "turns --profile full --profile loopserve-prefill --tokens 8192 --new-tokens 8 --rounds 2 --turns 2",
            "quick": "turns --profile loopserve-prefill --against full --tokens 512 "
            "--new-tokens 2 --rounds 1 --turns 1",
        },
    ),
    Stage("memory", "tiers, and memory by phase", 3, 140),
)


def named(names: tuple[str, ...]) -> tuple[Stage, ...]:
    """The stages of these names, in their own order; raises UsageError for one that is not known."""
    known = {stage.name: stage for stage in STAGES}
    for name in names:
        if name not in known:
            raise UsageError(f"unknown stage {name!r}; choose from {', '.join(known)}")
    return tuple(stage for stage in STAGES if stage.name in names)
