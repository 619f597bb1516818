"""The flags of `bench turns`."""

from __future__ import annotations

from typing import Annotated

import typer

from loopserve_cli.bench.options import DIALOGUES, FIRST_PROFILE, RIVALS, SYNTHETIC, TurnsOptions, all_named
from loopserve_cli.config import length
from loopserve_cli.errors import UsageError

TOKENS = 16384
TURNS = 4
# Long enough for one profile's timing; a comparison has many dialogues' turns, and its answers need to be long enough
# that compressed keys are chosen again.
NEW_TOKENS = 64
NEW_TOKENS_COMPARED = 32


Rounds = Annotated[int, typer.Option(metavar="N", help="How often each runs, in turn.")]


def turns_flags(
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|all",
            help="Our side's profile; with settings changed: loopserve+keep.budget=512; repeatable: all are compared. "
            "[default: full]",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="transformers|PROFILE",
            help="What to compare with: generate, or another profile, named in the same way. "
            "[default: transformers; none for several]",
        ),
    ] = None,
    dialogue: Annotated[
        str,
        typer.Option(metavar="|".join(DIALOGUES), help="Made up, or a bundled one with its recorded answers kept."),
    ] = SYNTHETIC,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help=f"The prompt's length, e.g. 32k; a bundled dialogue's at most. [default: {TOKENS}; all of it]",
        ),
    ] = None,
    new_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help=f"The answer's length. [default: {NEW_TOKENS}; {NEW_TOKENS_COMPARED} for several, or bundled]",
        ),
    ] = None,
    rounds: Rounds = 5,
    turns: Annotated[
        int | None,
        typer.Option(metavar="N", help=f"Turns of the synthetic dialogue, all equally long. [default: {TURNS}]"),
    ] = None,
    compile_steps: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile generate's steps on a CPU too, which can take a minute; on a GPU they always are.",
        ),
    ] = False,
) -> TurnsOptions:
    """Whom to time on what; the options check the flags."""
    names = all_named(profile or [FIRST_PROFILE])
    bundled = dialogue != SYNTHETIC
    compared = bundled or len(names) > 1
    if bundled and turns is not None:
        raise UsageError(f"--turns cuts the synthetic dialogue, but {dialogue} has its own; shorten it with --tokens")
    asked = None if tokens is None else length("--tokens", tokens)
    return TurnsOptions(
        against=RIVALS[0] if against is None and len(names) == 1 else against,
        tokens=TOKENS if asked is None and not bundled else asked,
        new_tokens=(NEW_TOKENS_COMPARED if compared else NEW_TOKENS) if new_tokens is None else new_tokens,
        rounds=rounds,
        turns=TURNS if turns is None else turns,
        profile=names[0],
        profiles=names if compared else (),
        dialogue=dialogue,
        compile=compile_steps,
    )
