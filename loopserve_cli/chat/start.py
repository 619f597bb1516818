"""From options to a chat: the transcript, the model, and then the reading."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from prompt_toolkit.output import Output
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.utils import is_dumb_terminal
from rich.console import Console
from rich.text import Text

from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.bundled import is_bundled, located
from loopserve_cli.chat.commands.files import begin_with, header
from loopserve_cli.chat.dashboard.source import attach
from loopserve_cli.chat.interrupts import Interrupts, quiet_keyboard
from loopserve_cli.chat.kv_file import feed
from loopserve_cli.chat.loading import LoadTimes, loading
from loopserve_cli.chat.paths import history_file, new_transcript
from loopserve_cli.chat.prompt import open_history, prompt_session
from loopserve_cli.chat.repl import greet, run_repl, show_tail
from loopserve_cli.chat.resumed import resolved
from loopserve_cli.chat.session import Session
from loopserve_cli.chat.single import only_message, run_single
from loopserve_cli.chat.terminal import leave_at_once, usable_afterwards
from loopserve_cli.chat.view import PlainView, View, choose_view
from loopserve_cli.config import ChatOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.output import CleanConsole
from loopserve_cli.transcript import Header, TranscriptWriter, resume
from loopserve_cli.transcript.write import target_of
from loopserve_cli.transcript.writer import read_one

Past = tuple[Header, list[Message], TranscriptWriter | None]


def run(options: ChatOptions) -> int:
    """Chat, or one turn; returns the exit code. Raises LoopserveError for what ends it in one line.

    KeyboardInterrupt and BrokenPipeError pass through to the edge of the command line.
    """
    check_working_folder()
    options = resolved(options, noting(console(stderr=True)))
    message = only_message(options.message)
    interrupts = Interrupts()
    with (
        usable_afterwards() as restore,
        quiet_keyboard(),
        interrupts.installed(),
        contextlib.ExitStack() as files,
    ):
        return chat(options, message, interrupts, leave_at_once(restore), files)


def chat(
    options: ChatOptions,
    message: str | None,
    interrupts: Interrupts,
    leave: Callable[[int], None],
    files: contextlib.ExitStack,
) -> int:
    """As `run`, once signals are handled: `leave` ends a program that has nothing to lose yet, `files` are let go of.

    No `message` is a chat, one is a single turn.
    """
    out, err = console(), console(stderr=True)
    with interrupts.leaving(leave):
        with err.status(Text(f"reading {options.resume}")) if options.resume else contextlib.nullcontext():
            past = read_past(options, warning(err))
        if past is not None and past[2] is not None:
            files.callback(past[2].close)
        conversation = load_conversation(options, err)
    view: View = PlainView(sys.stdout, err) if message is not None else choose_view(options.ui, out, aside=err)
    view.shows_thinking = options.thinking == "show" if options.thinking else message is None or err.is_terminal
    session = Session(conversation, options.sampling, Autosave.off(), view, out, err, interrupts)
    session.debug, session.on_full = options.debug, options.on_full
    attach(session)
    files.callback(lambda of: of.autosave.close(), session)  # the one of then, since /load changes it
    open_transcript(session, options, past, by_default=message is None)
    if message is None:
        conversation.engine.keeps_lines = True
        greet(session)
    if options.resume is not None:
        if message is None:
            show_tail(session)
        feed(session, options.resume)
    if message is not None:
        return run_single(session, message)
    if view.name != "plain":
        from loopserve_cli.chat.rehearsal import rehearse

        rehearse(view.panel)
    history = open_history(history_file(), session.warn)
    return run_repl(session, prompt_session(session, history, output=prompt_output()))


def check_working_folder() -> None:
    """Say so now where it was removed: torch's own libraries end the process as they are loaded there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise LoopserveError("the working folder was removed; change to another one") from None


def console(stderr: bool = False) -> Console:
    """A console that prints text as it is: no markup, no highlighting."""
    return CleanConsole(stderr=stderr)


def warning(err: Console) -> Callable[[str], None]:
    """Says what the user should not miss, before there is a session that does."""
    return lambda line: err.print(Text(line, style="yellow"), soft_wrap=True)


def noting(err: Console) -> Callable[[str], None]:
    """Says something by the way, before there is a session that does."""
    return lambda line: err.print(Text(line, style="dim"), soft_wrap=True)


def prompt_output() -> Output:
    """Where the prompt is drawn: not on stdout when that is a file or a pipe, for answers go there.

    A dumb terminal is sent no escape sequence.
    """
    stream = sys.stdout if sys.stdout.isatty() else sys.stderr
    return PlainTextOutput(stream) if is_dumb_terminal() else create_output(stdout=stream)


def read_past(options: ChatOptions, warn: Callable[[str], None]) -> Past | None:
    """The dialogue to go on with, read before the model is loaded, so that a wrong file costs no time.

    It is opened and locked, unless another file is saved to, or it is a bundled one: then it is only read.
    """
    copies = elsewhere(options)
    if options.save is not None and options.save.exists() and copies:
        if options.save.is_dir():
            raise UsageError(f"--save {options.save}: is a folder; give a file name")
        raise UsageError(f"{options.save} exists already; give --save another name, or go on with it by --resume")
    if options.resume is None:
        return None
    past: Past
    if copies or is_bundled(options.resume):
        past = (*read_one(located(options.resume), warn)[:2], None)
    else:
        past = resume(options.resume, warn, alone=True)
    roles = [m.role for m in past[1]]
    if past[0].questions_only and "user" in roles:
        if past[2] is not None:
            past[2].close()
        raise UsageError(f"{options.resume}: has no recorded answers; run it with loopserve replay {options.resume}")
    return past


def elsewhere(options: ChatOptions) -> bool:
    """Whether --save names another file than the one that goes on, however the two are written."""
    if options.save is None or options.resume is None:
        return options.save is not None
    return is_bundled(options.resume) or target_of(options.save) != target_of(options.resume)


def load_conversation(options: ChatOptions, err: Console) -> Conversation:
    """The model on its engine, with a line that says how far loading is."""
    with loading(err, options.model, LoadTimes()) as say:
        from loopserve_cli.engine.names import require

        require(options.model.model)  # before torch, which takes longer than seeing that a name is mistyped
        from loopserve_cli.engine.engine import Engine
        from loopserve_cli.engine.loader import load

        warn = warning(err)
        loaded = load(options.model, say, warn)
        engine = Engine(loaded, options.profile)
        return Conversation(engine, options.system, warn=warn, special_tokens=options.special_tokens)


def open_transcript(session: Session, options: ChatOptions, past: Past | None, by_default: bool) -> None:
    """Take over the dialogue that goes on, and decide where this chat is saved.

    Without --save and --resume only a chat is saved (`by_default`), not a single turn.
    """
    if past is not None:
        old, messages, writer = past
        session.conversation.begin(old.began, old.tools)
        begin_with(session, messages)
        if options.system is not None:
            session.conversation.set_system(options.system)
        if old.id is not None:
            session.conversation.id = old.id
        if old.model not in (None, session.model):
            session.note(f"this dialogue was held with {old.model}; it goes on with {session.model}")
        if writer is not None:
            session.autosave = Autosave.going_on(writer, messages, session.warn)
    if options.save is not None and elsewhere(options):
        said = past[1] if past is not None else ()
        session.autosave = Autosave.new(options.save, header(session), session.warn, at_once=True, messages=said)
    elif (past is None or past[2] is None) and by_default:
        session.autosave = Autosave.new(new_transcript(), header(session), session.warn)
