"""The lines below the input line: the dialogue's state while nothing runs."""

from __future__ import annotations

from prompt_toolkit.data_structures import Size
from prompt_toolkit.formatted_text import StyleAndTextTuples

from loopserve_cli.chat.dashboard import layout
from loopserve_cli.chat.dashboard.figures import idle
from loopserve_cli.chat.dashboard.source import dialogue
from loopserve_cli.chat.figures import duration, kv_used, memory, short, size
from loopserve_cli.chat.session import Session
from loopserve_cli.printable import printable_line


def bottom(session: Session, terminal: Size) -> str | StyleAndTextTuples:
    """The dashboard where it is shown and fits, else one line. Drawing it must not end the chat."""
    board = session.view.panel if session.view.name == "dashboard" else None
    if board is None or layout.size_for(terminal.columns, terminal.rows) is layout.Size.LINE:
        return state_line(session, terminal.columns)
    try:
        needed = attention(session)
        first = [("fg:ansiyellow", printable_line(" · ".join(needed)) + "\n")] if needed else []
        return [*first, *board.fragments(terminal.columns, terminal.rows)]
    except Exception as error:
        return failed(error)


def state_line(session: Session, columns: int | None = None) -> str:
    """The toolbar in so many columns, or why there is none."""
    try:
        return printable_line(toolbar(session, columns))
    except Exception as error:
        return failed(error)


def failed(error: Exception) -> str:
    """Why there is no toolbar."""
    return printable_line(f"{type(error).__name__}: {error}")


def toolbar(session: Session, columns: int | None = None) -> str:
    """The dialogue's state in one line, with what needs attention first; in few columns only what matters most.

    Context, TTFT, memory and KV are always there.
    """
    now = idle(dialogue(session)).now
    engine = session.conversation.engine
    used, limit = len(engine.tokens), engine.context_limit
    names = [session.model, engine.profile.name]
    rest = [f"TTFT {duration(now.ttft_ms)}", memory(now), f"KV {size(kv_used(now))}"]
    whole, brief = attention(session), attention(session, brief=True)
    forms = (
        [*whole, *names, fill(used, limit), *rest],
        [*whole, fill(used, limit), *rest],
        [*brief, fill(used, limit), *rest],
        [*brief, fill(used, limit).replace(" tokens", ""), *rest],
        [*brief[:1], short(used) if limit is None else f"{short(used)}/{short(limit)}", *rest],
    )
    lines = [" · ".join(form) for form in forms]
    return next((line for line in lines if columns is None or len(line) <= columns), lines[-1].replace(" · ", " "))


def attention(session: Session, brief: bool = False) -> list[str]:
    """What the user should see before anything else."""
    parts = []
    if session.interrupts.recent():
        parts.append("press Ctrl-C again to quit")
    if session.autosave.problem is not None:
        parts.append("NOT SAVED")
    if session.attachments:
        names = ", ".join(a.name for a in session.attachments)
        parts.append(f"+ {len(session.attachments)} files" if brief else f"+ {names}")
    if session.unanswered is not None:
        parts.append("/retry" if brief else "a message waits for its answer: /retry")
    return parts


def fill(used: int, limit: int | None) -> str:
    """How full the context is."""
    if limit is None:
        return f"{short(used)} tokens"
    return f"{short(used)}/{short(limit)} tokens ({used / limit:.0%})"
