"""The flags of `replay` that no other command has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from loopserve_cli.config import HISTORIES, ModelOptions, ReplayOptions, SamplingOptions
from loopserve_cli.profile import Profile

Asked = Callable[[ModelOptions, SamplingOptions, tuple[Profile, ...]], ReplayOptions]


def replay_flags(
    transcripts: Annotated[
        list[str],
        typer.Argument(metavar="TRANSCRIPT", help="Dialogue files, - for stdin, or demo, demo:long, demo:xlong."),
    ],
    history: Annotated[
        str, typer.Option(metavar="|".join(HISTORIES), help="Go on from the recorded answers, or the generated ones.")
    ] = "recorded",
    repeat: Annotated[int, typer.Option(metavar="N", help="Run every dialogue N times.")] = 1,
    max_turns: Annotated[int | None, typer.Option(metavar="N", help="Stop each dialogue after N turns.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep every turn there as it ends, and write the summary; beside it where DIR holds a run.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Go on with the run in DIR, given as it began: only what is missing."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Compare with an earlier run, kept there with --out: what changed beyond noise."
        ),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR",
            help="Exit with 3 when this holds, e.g. 'a.ttft_ms.p50 > 1.05 * b.ttft_ms.p50'; with --baseline, "
            "'ttft_ms.p50 > 1.05 * baseline.ttft_ms.p50', worse or worse_beside_full; repeatable.",
        ),
    ] = None,
    fidelity: Annotated[
        bool | None,
        typer.Option(
            "--fidelity/--no-fidelity",
            help="Decode the recorded answers once more, untimed, and compare with full attention token by token. "
            "Default: with several profiles.",
            show_default=False,
        ),
    ] = None,
    turns: Annotated[bool, typer.Option("--turns", help="Of several profiles, show every turn as well.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the verdict as a table for an issue or a README.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Share the dialogues among N processes: a GPU each, or the processor's threads split.",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="auto|local|HOST:PORT",
            help="Share them among the GPUs (else the processors) of a Ray cluster, N at most; needs loopserve[ray].",
        ),
    ] = None,
) -> Asked:
    """What to replay and how; the rest of the options is given to what this returns, which checks them all."""

    def asked(model: ModelOptions, sampling: SamplingOptions, profiles: tuple[Profile, ...]) -> ReplayOptions:
        return ReplayOptions(
            model=model,
            sampling=sampling,
            profiles=profiles,
            transcripts=tuple(transcripts),
            history=history,
            repeat=repeat,
            max_turns=max_turns,
            out=out,
            fail_if=tuple(fail_if or ()),
            fidelity=len(profiles) > 1 if fidelity is None else fidelity,
            turns=turns,
            markdown=markdown,
            resume=resume,
            workers=workers,
            ray=ray,
            baseline=baseline,
        )

    return asked
