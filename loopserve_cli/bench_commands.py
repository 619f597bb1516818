"""The benchmarks as commands: parse, build the options, import what the command needs, delegate."""

from __future__ import annotations

from dataclasses import replace

from loopserve_cli.bench.decode.flags import decode_flags
from loopserve_cli.bench.decode.options import DecodeOptions
from loopserve_cli.bench.device.flags import device_flags
from loopserve_cli.bench.device.options import DeviceOptions
from loopserve_cli.bench.flags import turns_flags
from loopserve_cli.bench.kernels.flags import kernels_flags
from loopserve_cli.bench.kernels.options import KernelsOptions
from loopserve_cli.bench.options import TurnsOptions
from loopserve_cli.command_group import command_group
from loopserve_cli.config import ModelOptions
from loopserve_cli.examples import epilog
from loopserve_cli.flags import Json, model_flags, takes

bench = command_group("bench", "Time the engine on made-up and bundled dialogues.")


@bench.command("turns", epilog=epilog("bench turns"))
@takes(options=turns_flags, model=model_flags)
def bench_turns(options: TurnsOptions, model: ModelOptions, json: Json = False) -> int:
    """Time a profile, or several, against transformers' own generate or another profile, on the same tokens."""
    from loopserve_cli.bench import run_turns

    return run_turns(replace(options, model=model, json=json))


@bench.command("decode", epilog=epilog("bench decode"))
@takes(options=decode_flags, model=model_flags)
def bench_decode(options: DecodeOptions, model: ModelOptions, json: Json = False) -> int:
    """Time output tokens under several profiles in turn, beside what the memory's bandwidth allows."""
    from loopserve_cli.bench.decode import run_decode

    return run_decode(replace(options, model=model, json=json))


@bench.command("kernels", epilog=epilog("bench kernels"))
@takes(options=kernels_flags)
def bench_kernels(options: KernelsOptions, json: Json = False) -> int:
    """Time one layer's sparse attention against the best dense one, and measure what its lines really hold."""
    from loopserve_cli.bench.kernels import run_kernels

    return run_kernels(replace(options, json=json))


@bench.command("device", epilog=epilog("bench device"))
@takes(options=device_flags)
def bench_device(options: DeviceOptions, json: Json = False) -> int:
    """Qualify this machine in stages: what it can do at best, what the kernels reach, whether all of it runs."""
    from loopserve_cli.bench.device import run_device

    return run_device(replace(options, json=json))
