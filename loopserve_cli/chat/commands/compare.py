"""/compare: the last turn once more under full attention, on the same history."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import cast

from loopserve_cli.chat.commands.command import no_argument
from loopserve_cli.chat.comparison import comparison
from loopserve_cli.chat.interrupts import quiet_keyboard
from loopserve_cli.chat.session import Session
from loopserve_cli.chat.wait_bar import WaitBar, tokens
from loopserve_cli.engine.events import Event, PrefillProgress, Token, TurnDone
from loopserve_cli.engine.layerwise import told_within
from loopserve_cli.errors import UsageError
from loopserve_cli.messages import Message
from loopserve_cli.profile import Profile, load_profile
from loopserve_cli.stats import TurnRecord

FULL = "full"


def compare(session: Session, argument: str) -> None:
    """Show both turns' figures, and where their answers part. The dialogue stays as it is; Ctrl-C stops it."""
    no_argument(argument, "/compare")
    ours = last_answer(session)
    profile = full_attention(session, ours.record)
    record = None
    with (
        quiet_keyboard(),
        session.interrupts.catching() as cancelled,
        session.conversation.aside(profile),
        contextlib.suppress(KeyboardInterrupt),  # pressed twice before there was an event
    ):
        record = run_again(session, cancelled)
    if record is None or not record.tokens_output:
        session.note("stopped before the answer began; the dialogue is as it was")
        return
    session.data(comparison(ours, Message("assistant", record.output_text or "", record=record), session.out.width))
    if session.sampling.temperature > 0:
        session.note("temperature is above 0, so answers differ by chance as well; /set temperature 0 rules that out")
    session.note("each was measured once; the dialogue is as it was")


def last_answer(session: Session) -> Message:
    """The answer to compare with; raises UsageError where there is none."""
    messages = session.conversation.messages
    if session.unanswered is not None:
        raise UsageError("the last message has no answer yet; /retry asks it again")
    if not messages or messages[-1].role != "assistant":
        raise UsageError("there is no turn to compare yet; ask something first")
    return messages[-1]


def full_attention(session: Session, record: TurnRecord | None) -> Profile:
    """The profile to compare with, in the tier of now; raises UsageError where that shows nothing or is impossible."""
    engine = session.conversation.engine
    if engine.freezes:
        raise UsageError(
            "retain.tier is evict: the history that full attention would read is gone; "
            "/set retain.tier device, ask again, and compare then"
        )
    now = engine.profile
    if now.attends_to_everything and (record is None or record.profile == now.name):
        raise UsageError(
            f"profile {now.name} is full attention itself; /profile loopserve, ask again, and compare then"
        )
    full, tier = load_profile(FULL), now.retain["tier"]
    return full if full.retain["tier"] == tier else full.with_overrides([f"retain.tier={tier}"])


def run_again(session: Session, cancelled: Callable[[], bool]) -> TurnRecord | None:
    """The last turn once more, with a bar and without showing its answer; what it measured."""
    conversation = session.conversation
    text = conversation.begin_turn_anew()
    assert text is not None
    record, answered = None, 0
    prefill, answer = (
        WaitBar(session.err, f"full attention: {what}", tokens, disable=session.plain) for what in ("prefill", "answer")
    )

    def read(now: PrefillProgress) -> None:
        prefill.show(now.done, now.total)

    asked = cast("Generator[Event]", conversation.ask(text, session.sampling, cancelled))
    with contextlib.ExitStack() as drawn, contextlib.closing(asked) as turn, told_within(conversation.engine, read):
        drawn.enter_context(prefill)
        with session.interrupts.raising() as begun:
            for event in turn:
                begun()
                if isinstance(event, PrefillProgress):
                    read(event)
                elif isinstance(event, Token):
                    if not answered:
                        drawn.close()
                        drawn.enter_context(answer)
                    answered += 1
                    answer.show(answered, session.sampling.max_new_tokens)
                elif isinstance(event, TurnDone):
                    record = event.record
    return record
