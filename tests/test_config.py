"""Options check themselves: every wrong value is one line."""

from __future__ import annotations

from typing import Any

import pytest

from loopserve_cli.config import ModelOptions, ReplayOptions, SamplingOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import load_profile


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"model": ""}, "--model is empty"),
        ({"dtype": "int3"}, "unknown dtype 'int3'"),
        ({"quant": "q4"}, "unknown quantisation 'q4'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"device": "cpu:1"}, "unknown device 'cpu:1'"),
        ({"device": "cuda:x"}, "unknown device 'cuda:x'"),
        ({"device": "cuda:"}, "unknown device 'cuda:'"),
        ({"device": "cuda:²"}, "unknown device 'cuda:²'"),
        ({"device": "cpu:"}, "unknown device 'cpu:'"),
    ],
)
def test_model_options_refuse(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        ModelOptions(**options)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:13"])
def test_model_options_take_devices(device: str) -> None:
    assert ModelOptions(device=device).device == device


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"top_p": 1.1}, "top_p is 1.1, but must be from 0 to 1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"min_p": 2}, "min_p is 2"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0, but must be from 0.01 to 100"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"stop": ("",)}, "a stop string is empty"),
        ({"temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_sampling_options_refuse(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        SamplingOptions(**options)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"transcripts": ()}, "no dialogue to replay"),
        ({"profiles": ()}, "no profile to replay under"),
        ({"history": "made-up"}, "unknown --history 'made-up'"),
        ({"repeat": 0}, "--repeat is 0"),
        ({"max_turns": -1}, "--max-turns is -1"),
    ],
)
def test_replay_options_refuse(options: dict[str, Any], line: str) -> None:
    good: dict[str, Any] = {"profiles": (load_profile("full"),), "transcripts": ("demo",)}
    with pytest.raises(UsageError) as caught:
        ReplayOptions(model=ModelOptions(), sampling=SamplingOptions(), **good | options)
    assert str(caught.value).startswith(line)
