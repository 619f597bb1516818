"""Ctrl-C at every line that runs between the prompt and the command: the chat goes on."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from chat_fakes import ScriptedEngine
from forked_chat import ANSWER, ForkedChat
from prompt_toolkit import PromptSession


def press_at_line(count: int) -> Any:
    """In the child: SIGINT when so many lines of the chat's own code were run since the first prompt returned."""

    def hook(engine: ScriptedEngine) -> None:
        prompt, left = PromptSession.prompt, [count]

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            if not frame.f_globals.get("__name__", "").startswith("loopserve_cli.chat"):
                return None
            if event == "line":
                left[0] -= 1
                if left[0] == 0:
                    sys.settrace(None)
                    os.kill(os.getpid(), signal.SIGINT)
            return trace

        def traced(self: PromptSession[str], **given: Any) -> str:
            line = prompt(self, **given)
            if left[0] == count:
                frame: FrameType | None = sys._getframe(1)
                while frame is not None:
                    frame.f_trace = trace
                    frame = frame.f_back
                sys.settrace(trace)
            return line

        PromptSession.prompt = traced  # type: ignore[method-assign, assignment]

    return hook


@pytest.mark.parametrize("line", ["hello", "/tokens"])
def test_ctrl_c_between_prompt_and_command_never_ends_the_chat(line: str, tmp_path: Path) -> None:
    wrong = []
    for count in range(1, 61, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        chat = ForkedChat(folder, press_at_line(count))
        chat.prompts(1)
        chat.type(f"{line}\r")
        chat.prompts(2)
        chat.type(" and on\r")
        chat.prompts(3)
        chat.type("/exit\r")
        code, said = chat.ended(), chat.said()
        if code or "Traceback" in chat.screen or not chat.usable() or not said or said[-1] != ("assistant", ANSWER):
            wrong.append(f"line {count}: code {code}, {said}, {chat.screen[-300:]}")
        chat.close()
    print(f"30 presses between prompt and {line}: {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
