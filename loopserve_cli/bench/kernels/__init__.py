"""`loopserve bench kernels`: one attention layer timed against dense attention, and what chosen lines really hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from loopserve_cli.bench.kernels.options import KernelsOptions
from loopserve_cli.errors import ModelError, UsageError

if TYPE_CHECKING:
    import torch

PROFILE = "loopserve-prefill"


def run_kernels(options: KernelsOptions) -> int:
    """Time the grid, measure coverage, print both; the exit status.

    Raises UsageError for a device or a length that is not there, before anything is timed.
    """
    from loopserve_cli.bench.kernels.tables import print_tables
    from loopserve_cli.output import print_document, teller

    say = teller()
    whole = measured(options, say)
    layer, environment = whole["layer"], whole["environment"]
    title = f"{layer['heads']} heads over {layer['groups']}, size {layer['size']}, {layer['dtype']}"
    title += f" on {environment['device']}"
    if options.json:
        print_document(whole)
    else:
        print_tables(whole, title)
    if options.plot is not None and whole["summary"]:
        from loopserve_cli.bench.kernels.plot import draw

        draw(whole["summary"], title, options.plot)
        say(f"{options.plot}: plot written")
    return 0


def measured(options: KernelsOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything that was measured, as JSON types."""
    import torch

    from loopserve_cli.bench.kernels.grid import GridRun
    from loopserve_cli.bench.kernels.layers import measure_coverage, overall
    from loopserve_cli.bench.kernels.summary import summarise
    from loopserve_cli.environment import measuring
    from loopserve_cli.measure.document import command_of, whole_run
    from loopserve_cli.policies.prefill import line_policy
    from loopserve_cli.profile import load_profile
    from loopserve_kernels.device import device_name

    device = pick(options.device)
    layer, grid = options.layer(device.type), options.grid(device.type)
    profile = load_profile(PROFILE)
    if profile.prefill.settings["objective"] != options.objective:
        profile = profile.with_overrides([f"prefill.objective={options.objective}"])
    policy = line_policy(profile.prefill)
    # The model first: a length that it does not read is told at once.
    found = measure_coverage(policy, options.tokens, str(device), options.seed, say) if options.tokens else []
    with measuring(device_name(device), layer.dtype) as environment, torch.no_grad():
        shapes = GridRun(layer, grid, policy, device, options.seed, say).measure()
    records = [asdict(timing) for shape in shapes for timing in shape.timings]
    facts = {"layer": asdict(layer), "grid": asdict(grid), "shapes": [shape.facts() for shape in shapes]}
    whole = whole_run(command_of("bench kernels", options), environment, records, summarise(shapes), **facts)
    layers = [asdict(part) for part in found]
    held = {"profile": profile.name, "alpha": policy.alpha, "layers": layers, "overall": overall(found)}
    return whole | {"coverage": held}


def pick(name: str) -> torch.device:
    """The device by name; raises UsageError when it is not there."""
    from loopserve_cli.engine.placement import pick_device

    try:
        return pick_device(name)
    except ModelError as error:
        raise UsageError(f"--device {name}: {error}") from None


__all__ = ["KernelsOptions", "run_kernels"]
