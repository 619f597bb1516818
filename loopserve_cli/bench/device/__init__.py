"""`loopserve bench device`: qualifies a machine in stages, going on after a failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

from loopserve_cli.bench.device.folder import DONE, SKIPPED, Folder, Result
from loopserve_cli.bench.device.options import DeviceOptions
from loopserve_cli.bench.device.process import run_stage
from loopserve_cli.bench.device.stages import PART_S, Stage
from loopserve_cli.errors import UsageError

Say = Callable[[str], None]
# Less is not worth starting a stage for.
LEAST_S = 5.0


def run_device(options: DeviceOptions) -> int:
    """Run the stages that the folder lacks, print a table of all of them; 0 if every one is done or has no object here.

    Raises UsageError for a device that is not there and a folder with results of another device or size,
    LoopserveError where results or costs cannot be written.
    """
    from loopserve_cli.bench.device.table import print_results
    from loopserve_cli.bench.device.written_costs import write_costs
    from loopserve_cli.bench.kernels import pick
    from loopserve_cli.output import print_document, teller

    say = teller()
    folder = Folder(options.out)
    if options.show:
        results = [result for stage in options.chosen if (result := folder.read(stage.name)) is not None]
    else:
        device = pick(options.device)
        scale = "quick" if options.quick else {"cuda": "gpu"}.get(device.type, "cpu")
        check_folder(folder, options, str(device), scale)
        results = run_stages(options, folder, str(device), scale, say)
    if options.costs is not None:
        for costs in write_costs(folder, options.costs):
            say(f"{options.costs}: costs of {costs.measured_on} in {costs.dtype} written")
    if options.json:
        print_document({"folder": str(folder.path), "stages": [asdict(result) for result in results]})
    else:
        print_results(results)
        say(f"{folder.path}: one JSON per stage")
    return 0 if all(result.status in (DONE, SKIPPED) for result in results) else 1


def check_folder(folder: Folder, options: DeviceOptions, device: str, scale: str) -> None:
    """Refuse to mix results that cannot be compared; raises UsageError."""
    for stage in options.chosen:
        known = folder.read(stage.name)
        if known is not None and (known.device, known.scale) != (device, scale):
            raise UsageError(
                f"--out {folder.path}: holds {stage.name} of {known.device}, {known.scale}, and this is {device}, "
                f"{scale}; give another folder"
            )


def run_stages(options: DeviceOptions, folder: Folder, device: str, scale: str, say: Say) -> list[Result]:
    """The results in order: those already there, and those run now, each written as soon as it ends."""
    ends = time.perf_counter() + total_s(options)
    results = []
    for stage in options.chosen:
        known = folder.read(stage.name)
        if known is not None:
            say(f"{stage.name}: already there; delete {folder.file(stage.name)} to run it again")
            results.append(known)
            continue
        if stage.on not in (None, device.partition(":")[0]):
            results.append(Result(stage.name, SKIPPED, device, scale, 0.0, stage.limit_s, [], [], "there is no GPU"))
            folder.write(results[-1])
            continue
        limit = min(stage.limit_s, max(LEAST_S, ends - time.perf_counter()))
        say(f"{stage.name}: {stage.what}, at most {limit:.0f} s")
        result = run_stage(stage, device, scale, limit)
        folder.write(result)
        say(f"{stage.name}: {told(stage, result)}")
        results.append(result)
    return results


def total_s(options: DeviceOptions) -> float:
    """Seconds that all stages have together."""
    return PART_S if options.part is not None else sum(stage.limit_s for stage in options.chosen)


def told(stage: Stage, result: Result) -> str:
    """A stage's outcome in a line."""
    reason = "" if result.reason is None else f": {result.reason}"
    return f"{result.status} in {result.seconds:.1f} s{reason}"


__all__ = ["DeviceOptions", "run_device"]
