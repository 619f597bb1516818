"""The commands: parse, build the options, import what the command needs, delegate."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from loopserve_cli import __version__, completions
from loopserve_cli.bench_commands import bench
from loopserve_cli.chat_command import NEWEST, ChatCommand
from loopserve_cli.command_group import help_if_bare
from loopserve_cli.config import DTYPES, ON_FULL, THINKING, UIS, ChatOptions, ModelOptions
from loopserve_cli.edge import INTERRUPTED, guarded
from loopserve_cli.examples import epilog
from loopserve_cli.flags import (
    Json,
    Sampling,
    SpecialTokens,
    Strict,
    model_flags,
    profile_flags,
    profiles_flags,
    sampling_flags,
    takes,
)
from loopserve_cli.measure.compare.options import CompareOptions, compare_flags
from loopserve_cli.printable import printable_line
from loopserve_cli.profile import Profile
from loopserve_cli.profiles_commands import profiles
from loopserve_cli.replay.endpoint_flags import Beside, endpoint_flags
from loopserve_cli.replay.flags import Asked, replay_flags

CHAT_TEMPERATURE = 0.7

app = typer.Typer(
    name="loopserve",
    help="Long multi-turn chat with a local language model, every turn measured.",
    epilog=epilog(""),
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bench, name="bench")
app.add_typer(profiles, name="profiles")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """The version, or with no command the help."""
    del debug  # the edge reads it before anything is parsed
    if version:
        typer.echo(f"loopserve {__version__}")
        raise typer.Exit
    help_if_bare(context)


@app.command(cls=ChatCommand, epilog=epilog("chat"))
@takes(model=model_flags, profile=profile_flags, sampling=sampling_flags)
def chat(
    invocation: typer.Context,
    model: ModelOptions,
    profile: Profile,
    sampling: Sampling,
    message: Annotated[
        str | None, typer.Argument(metavar="MESSAGE", help="Ask this, print the answer and leave.")
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="The system prompt.")] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[FILE]",
            autocompletion=completions.dialogues,
            help="Go on with a saved dialogue: a file, a name that `loopserve chats` lists, or demo, demo:long, "
            "demo:xlong. Without FILE, last or before another option: the newest.",
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the transcript is written.")] = None,
    ui: Annotated[
        str, typer.Option(metavar="|".join(UIS), help="How much to show.", autocompletion=completions.one_of(*UIS))
    ] = "dashboard",
    special_tokens: SpecialTokens = False,
    thinking: Annotated[
        str | None, typer.Option(metavar="|".join(THINKING), help="What a model thinks before it answers.")
    ] = None,
    on_full: Annotated[
        str,
        typer.Option(
            metavar="|".join(ON_FULL),
            help="What a message meets that has no room in the context: stop refuses it, slide forgets the oldest "
            "turns, which the transcript keeps.",
        ),
    ] = "stop",
) -> int:
    """Talk with a model. With MESSAGE or piped input: one turn, the answer on stdout.

    With both, what is piped in stands before MESSAGE. Defaults of your own stand in config.toml; `loopserve doctor`
    says where, and what it holds.
    """
    draw = sampling(0.0 if model.model == "demo" else CHAT_TEMPERATURE)
    newest = resume == NEWEST
    file = None if resume is None or newest else Path(resume)
    options = ChatOptions(model, draw, profile, system, file, save, ui, message, special_tokens, thinking)
    options = replace(options, debug=bool(invocation.find_root().params.get("debug")), resume_newest=newest)
    options = replace(options, on_full=on_full)
    from loopserve_cli.chat import run

    return run(options)


@app.command(epilog=epilog("replay"))
@takes(asked=replay_flags, beside=endpoint_flags, model=model_flags, profiles=profiles_flags, sampling=sampling_flags)
def replay(
    asked: Asked,
    beside: Beside,
    model: ModelOptions,
    profiles: tuple[Profile, ...],
    sampling: Sampling,
    special_tokens: SpecialTokens = False,
    strict: Strict = False,
    json: Json = False,
) -> int:
    """Run dialogues again and time every turn, under one profile or several, or at a server."""
    options = beside(asked(model, sampling(0.0), profiles))
    from loopserve_cli.replay import run

    return run(replace(options, special_tokens=special_tokens, strict=strict, json=json))


@app.command(epilog=epilog("report"))
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that replay wrote with --out.")],
) -> int:
    """Make report.html of a run again: its figures, verdict and records as one page that opens offline."""
    from loopserve_cli.replay.report_command import run

    return run(folder)


@app.command(epilog=epilog("compare"))
@takes(options=compare_flags)
def compare(options: CompareOptions, json: Json = False) -> int:
    """Say what changed from one replay to another beyond noise, turn by turn."""
    from loopserve_cli.replay.compare_command import run

    return run(replace(options, json=json))


@app.command(epilog=epilog("convert"))
def convert(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A dialogue file in any format that replay reads, or - for stdin.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    to: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="loopserve, openai, sharegpt or vllm; else OUT's name decides.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    strict: Strict = False,
) -> int:
    """Turn a dialogue file of one format into another."""
    from loopserve_cli.transcript import convert as run

    written = run(None if source == "-" else Path(source), target, to, overwrite, strict=strict)
    dialogues = "dialogue" if written == 1 else "dialogues"
    typer.echo(printable_line(f"{target}: {written} {dialogues} written"), err=True)
    return 0


@app.command(epilog=epilog("doctor"))
def doctor(json: Json = False) -> int:
    """Say what this machine has, what fits, and what to do about what is missing."""
    from loopserve_cli.doctor import run

    return run(json)


@app.command(epilog=epilog("models"))
def models(
    dtype: Annotated[str, typer.Option(metavar="|".join(DTYPES), help="Count the weights in this format.")] = "auto",
    json: Json = False,
) -> int:
    """List the models at hand, what to give to --model for them, their sizes, and whether they fit."""
    from loopserve_cli.models import run

    return run(dtype, json)


@app.command(epilog=epilog("chats"))
def chats(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORD", help="Only dialogues that hold all of these, in any case."),
    ] = None,
    json: Json = False,
) -> int:
    """List the saved dialogues, the newest first, or say where words stand in them."""
    from loopserve_cli.chats.report import run

    return run(words or [], json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = guarded(typer.main.get_command(app), given)
    except KeyboardInterrupt:  # between the edge and here
        code = INTERRUPTED
    if arguments is None:
        # All is done and told: one more Ctrl-C, while torch shuts down, must not print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code
