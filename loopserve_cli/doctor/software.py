"""Python and the packages: installed, in the range that loopserve declares, and loading."""

from __future__ import annotations

import importlib
import logging
import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from loopserve_cli.doctor.check import Check

NAMED = ("torch", "transformers")


def software_checks() -> Iterator[Check]:
    """Python, torch and transformers by name, the other packages in one line."""
    yield Check("Python", "ok", f"{platform.python_version()} on {platform.platform()}")
    try:
        declared = metadata.requires("loopserve") or []
    except metadata.PackageNotFoundError:
        yield Check("loopserve", "problem", "runs from a folder, not installed", "pip install -e . in that folder")
        return
    needed = [Requirement(text) for text in declared]
    needed = [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in needed:
        if requirement.name in NAMED:
            yield _loads(requirement)
    rest = [r for r in needed if r.name not in NAMED]
    wrong = [check for check in map(installed, rest) if check.status != "ok"]
    yield from wrong
    yield Check("packages", "ok", f"{len(rest) - len(wrong)} others in range")


def installed(requirement: Requirement) -> Check:
    """Whether a package is there, in the declared range."""
    name, wanted = requirement.name, str(requirement.specifier)
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "problem", "not installed", f'pip install "{name}{wanted}"')
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(name, "note", f"{version}, outside the tested range {wanted}", f'pip install "{name}{wanted}"')
    return Check(name, "ok", version)


def _loads(requirement: Requirement) -> Check:
    check = installed(requirement)
    if check.status == "problem":
        return check
    try:
        importlib.import_module(requirement.name)
    except (ImportError, OSError) as error:
        return Check(
            check.name,
            "problem",
            f"{check.found} does not load: {error}",
            f"pip install --force-reinstall {check.name}",
        )
    return check


def bitsandbytes_check(device: str) -> Check:
    """Whether `--quant` works on `device`: 64 x 64 numbers to nf4 and back, within the format's error."""
    import torch

    # It warns about an optional package that nothing here needs.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    advice = "--quant nf4 and int8 need it; pip install --force-reinstall bitsandbytes"
    try:
        import bitsandbytes
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        numbers = torch.linspace(-1, 1, 4096, device=device).view(64, 64)
        packed, state = quantize_4bit(numbers, quant_type="nf4")
        error = float((dequantize_4bit(packed, state) - numbers).norm() / numbers.norm())
    except (ImportError, OSError, RuntimeError) as problem:
        return Check("bitsandbytes", "note", f"does not work: {problem}".partition("\n")[0], advice)
    if not error < 0.2:
        return Check("bitsandbytes", "note", f"nf4 on {device} is wrong by {error:.0%}", advice)
    return Check("bitsandbytes", "ok", f"{bitsandbytes.__version__}, nf4 works on {device} (error {error:.0%})")
