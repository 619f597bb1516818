"""The slash commands: one row each."""

from __future__ import annotations

import difflib

from rich.console import Group
from rich.table import Table
from rich.text import Text

from loopserve_cli.chat.commands import context, dialogue, example, files, read, settings, show
from loopserve_cli.chat.commands.cache import cache
from loopserve_cli.chat.commands.command import Command
from loopserve_cli.chat.commands.compare import compare
from loopserve_cli.chat.commands.copying import copy
from loopserve_cli.chat.commands.export import export, export_choices
from loopserve_cli.chat.commands.facts import show_chat
from loopserve_cli.chat.commands.lines import choices as lines_choices
from loopserve_cli.chat.commands.lines import lines
from loopserve_cli.chat.commands.probe import probe
from loopserve_cli.chat.commands.resetting import reset, reset_choices
from loopserve_cli.chat.commands.setting_shown import set_
from loopserve_cli.chat.commands.stats import stats
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import UsageError

KEYS = (
    ("Enter", "send"),
    ("Alt+Enter, Esc Enter", "a new line"),
    ("Ctrl-X Ctrl-E", "write the message in your editor"),
    ("Ctrl-R, Up", "search what you typed before, or go back to it"),
    ("F2", "show the dashboard, or hide it"),
    ("Tab", "complete a command, a setting or a path"),
    ("Ctrl-C", "clear the input; stop an answer; twice within 2 s on an empty line: quit"),
    ("Ctrl-D", "quit, on an empty line"),
    ("@FILE", 'in a message: put the file\'s text before it; @"MY FILE" where the name has blanks'),
    ("//TEXT", "send TEXT with one slash before it"),
    ('"""', 'begins a message of several lines; """ ends it'),
    ("exit, quit, bye", "typed alone: leave, when you say y"),
)


def help_(session: Session, argument: str) -> None:
    """The commands and the keys, or one command."""
    if argument:
        command = find(argument.removeprefix("/"))
        also = f" (also {', '.join('/' + alias for alias in command.aliases)})" if command.aliases else ""
        session.data(f"{command.usage}: {command.help}{also}")
        return
    commands = Table(box=None, pad_edge=False, show_header=False)
    for command in COMMANDS:
        commands.add_row(Text(command.usage, no_wrap=True), command.help)
    keys = Table(box=None, pad_edge=False, show_header=False)
    for key, does in KEYS:
        keys.add_row(Text(key, no_wrap=True), does)
    session.data(Group(commands, Text(), keys))


COMMANDS = (
    Command("help", help_, "the commands and the keys", "[COMMAND]", ("?",), lambda _s, b: [] if b else names()),
    Command(
        "example",
        example.example,
        "put the next line that the demo model understands into the input line; /example list shows them",
        "[list]",
        choices=example.example_choices,
    ),
    Command("stats", stats, "what every turn so far measured, those before a resume too"),
    Command("compare", compare, "the last turn again under full attention: time, bytes, where the answers part"),
    Command("cache", cache, "how many tokens of every past turn are still read, by layer"),
    Command(
        "lines",
        lines,
        "which lines the last prefill that chose computed: by layer, by head, or drawn",
        "[LAYER [HEAD]] [--png FILE]",
        choices=lines_choices,
    ),
    Command("probe", probe, "ask without keeping the turn", "TEXT"),
    Command("dashboard", show.dashboard, "show the live dashboard, or hide it (F2 too)"),
    Command("tokens", show.tokens, "how long the dialogue is, in tokens"),
    Command("undo", dialogue.undo, "take the last exchange back"),
    Command("retry", dialogue.retry, "ask the last message again, in place of its answer"),
    Command("edit", dialogue.edit, "take the last exchange back and put its message into the input line"),
    Command("system", dialogue.system, 'show or change the system prompt; /system "" removes it', "[TEXT]"),
    Command(
        "read",
        read.read,
        "put the text of files in front of your next message; @FILE in a message does the same",
        "FILE ...",
        takes_path=True,
    ),
    Command(
        "save",
        files.save,
        "write a copy of the dialogue; --kv, with or without FILE, keeps its cache too: going on needs no prefill",
        "FILE [--kv]",
        choices=files.save_choices,
        takes_path=True,
    ),
    Command("copy", copy, "put the last answer into the clipboard"),
    Command(
        "export",
        export,
        "write the dialogue as Markdown; --overwrite replaces a file",
        "FILE.md [--overwrite]",
        choices=export_choices,
        takes_path=True,
    ),
    Command(
        "load",
        files.load,
        "go on with a dialogue from a file, or demo, demo:long, demo:xlong, in a new transcript",
        "FILE",
        choices=files.load_choices,
        takes_path=True,
    ),
    Command(
        "full",
        context.full,
        "what happens when the context is full: stop, or slide, which forgets the oldest turns",
        "[stop|slide]",
        choices=context.full_choices,
    ),
    Command(
        "set",
        set_,
        "show all settings, explain one, or change it: sampling, thinking, or the profile's, such as prefill.policy",
        "[KEY [VALUE]]",
        choices=settings.set_choices,
    ),
    Command("reset", reset, "put all settings, or one, back as the chat began", "[KEY]", choices=reset_choices),
    Command("profile", settings.profile, "show or change the profile", "[NAME]", choices=settings.profile_choices),
    Command("show", show_chat, "the model, its template, context, dtype and tier, the profile, where this is saved"),
    Command("clear", dialogue.clear, "forget the dialogue, here and in the transcript; the system prompt stays"),
    Command("exit", dialogue.leave, "leave", aliases=("quit", "bye")),
)


def names() -> list[str]:
    """Every command's name, then the aliases."""
    return [c.name for c in COMMANDS] + [alias for c in COMMANDS for alias in c.aliases]


def find(name: str) -> Command:
    """The command of that name or alias; raises UsageError with the nearest one."""
    for command in COMMANDS:
        if name == command.name or name in command.aliases:
            return command
    near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
    hint = f"; did you mean /{near[0]}?" if near else "; /help lists them"
    raise UsageError(f"unknown command /{name}{hint} (//{name} sends it as text)")


def dispatch(session: Session, line: str) -> None:
    """Run a line that begins with a slash; raises LoopserveError in one line for what is wrong with it."""
    words = line[1:].split(maxsplit=1)
    name = words[0] if words and not line[1:2].isspace() else ""
    if not name:
        raise UsageError("a command's name follows the slash; /help lists them (// sends a slash)")
    find(name).run(session, words[1].strip() if len(words) > 1 else "")
