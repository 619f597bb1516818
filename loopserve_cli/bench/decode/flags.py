"""The flags of `bench decode`."""

from __future__ import annotations

from typing import Annotated

import typer

from loopserve_cli.bench.decode.options import PROFILES, DecodeOptions
from loopserve_cli.bench.flags import Rounds
from loopserve_cli.config import lengths


def decode_flags(
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A profile to time; with settings changed: loopserve+keep.budget=512; repeatable. "
            f"[default: {', '.join(PROFILES)}]",
        ),
    ] = None,
    tokens: Annotated[
        str, typer.Option(metavar="N,N", help="Lengths of the dialogue with its answer, e.g. 8k,32k,128k.")
    ] = "8k",
    new_tokens: Annotated[int, typer.Option(metavar="N", help="The answer's length, in tokens.")] = 129,
    rounds: Rounds = 5,
) -> DecodeOptions:
    """What to time; the options check the flags."""
    return DecodeOptions(
        profiles=tuple(dict.fromkeys(profile or PROFILES)),
        tokens=lengths("--tokens", tokens),
        new_tokens=new_tokens,
        rounds=rounds,
    )
