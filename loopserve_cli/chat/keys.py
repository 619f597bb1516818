"""Key bindings of the input line."""

from __future__ import annotations

from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from loopserve_cli.chat.interrupts import Interrupts


def bindings(interrupts: Interrupts) -> KeyBindings:
    """Enter sends, Alt+Enter adds a line, Ctrl-C clears and then quits. Ctrl-D is prompt_toolkit's own."""
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def add_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-x", "c-e")
    def write_elsewhere(event: KeyPressEvent) -> None:
        # prompt_toolkit's own binding would send the text at once.
        event.current_buffer.open_in_editor()

    @keys.add("c-c")
    @keys.add("<sigint>")
    def clear_or_quit(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if not buffer.text and interrupts.recent():
            event.app.exit(exception=EOFError)
            return
        interrupts.press()
        if buffer.text:
            buffer.reset(append_to_history=True)

    return keys
