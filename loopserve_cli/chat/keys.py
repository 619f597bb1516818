"""Key bindings of the input line."""

from __future__ import annotations

from collections.abc import Callable

from prompt_toolkit.document import Document
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.validation import ValidationError

from loopserve_cli.chat.block import is_open
from loopserve_cli.chat.interrupts import Interrupts
from loopserve_cli.chat.terminal import encodable

NOT_UTF8 = "bytes that are not UTF-8 are replaced by \ufffd; correct it, or press Enter again"


def bindings(interrupts: Interrupts, switch: Callable[[], None] = lambda: None) -> KeyBindings:
    """Enter sends, Alt+Enter adds a line, Ctrl-C clears, or quits when pressed twice. Others are prompt_toolkit's.

    F2 calls `switch`.
    """
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        text = encodable(buffer.text)
        if is_open(text):  # a message of several lines goes on
            buffer.newline(copy_margin=False)
            return
        if text == buffer.text:
            buffer.validate_and_handle()
            return
        buffer.document = Document(text)
        buffer.validation_error = ValidationError(message=NOT_UTF8)

    @keys.add("escape", "enter")
    def add_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-x", "c-e")
    def write_elsewhere(event: KeyPressEvent) -> None:
        # prompt_toolkit's own binding would send the text at once.
        event.current_buffer.open_in_editor()

    @keys.add("f2")
    def switch_dashboard(event: KeyPressEvent) -> None:
        switch()

    @keys.add("c-c")
    @keys.add("<sigint>")
    def clear_or_quit(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.text:
            interrupts.forget()
            buffer.reset(append_to_history=True)
        elif interrupts.recent():
            event.app.exit(exception=EOFError)
        else:
            interrupts.press()

    return keys
