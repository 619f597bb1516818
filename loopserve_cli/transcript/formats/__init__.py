"""The formats of others: the records of a file, as parsed JSON, to the dialogues they hold.

| format | told by | a record |
|---|---|---|
| SCBench | multi_turns | `{"id", "context", "multi_turns": [{"input", "answer"?}]}` |
| LoopServe benchmark | multi_turn | `{"multi_turn": [{"prompt_back", "question_at_back"?, "answer"?}]}` |
| LongMemEval | haystack_sessions | `{"haystack_sessions": [[{"role", "content"}]], "question", "answer"}` |
| MultiChallenge | CONVERSATION | `{"QUESTION_ID", "CONVERSATION": [{"role", "content"}]}` |
| OASST trees | prompt, an object | `{"message_tree_id", "prompt": {"role", "text", "replies": [...]}}` |
| OASST messages | message_id, parent_id | `{"message_id", "parent_id", "message_tree_id", "role", "text"}`, each |
| ChatGPT export | mapping | `{"title", "mapping": {id: {"message", "parent", "children"}}, "current_node"}` |
| Claude export | chat_messages | `{"uuid", "chat_messages": [{"sender", "text", "content"}]}` |
| Open-WebUI export | chat, an object | `{"id", "chat": {"history": {"messages": {id: {...}}, "currentId"}}}` |
| llm logs | prompt, response, conversation_id | `{"conversation_id", "prompt", "response"}`, an exchange each |
| LoCoMo | session_1, or speaker | `{"sample_id", "conversation": {"session_1": [{"speaker", "text"}]}, "qa": [...]}` |
| ShareGPT | conversations | `{"id"?, "conversations": [{"from", "value"}]}`, or with role and content |
| WildChat, LMSYS-Chat | conversation | `{"conversation": [{"role", "content"}]}` |
| OpenAI messages, vLLM, Ollama | messages | `{"id"?, "messages": [{"role", "content"}], "tools"?}` |
| OpenAI Responses | input | `{"model", "instructions"?, "input": [{"role", "content"}]}` |
| a list of messages | the only one | `{"dialog": [{"role", "content"}]}`, whatever its name |
| MT-Bench-101 | history, of user and bot | `{"task", "id", "history": [{"user", "bot"}]}` |
| MT-Bench | turns or prompt, of text | `{"question_id", "turns": ["..."]}`: questions only |
| aiperf | turns, session_id | `{"session_id"?, "turns": [{"text"}]}` or `{"session_id", "text"}`: questions only |
| Ollama generate | model, prompt | `{"model", "prompt", "system"?, "response"?}` |

The order matters where a record has the fields of two: what is more particular comes first.
"""

from __future__ import annotations

from typing import Any

from loopserve_cli.transcript.formats import benchmarks, llm_logs, memory, plain, trees
from loopserve_cli.transcript.formats.chatgpt import chatgpt
from loopserve_cli.transcript.formats.claude import claude
from loopserve_cli.transcript.formats.found import Format, Record, has, has_kind, one
from loopserve_cli.transcript.formats.open_webui import open_webui

FORMATS = (
    Format("SCBench", "multi_turns", has("multi_turns"), one(benchmarks.scbench)),
    Format("LoopServe benchmark", "multi_turn", has("multi_turn"), benchmarks.loopserve_benchmark),
    Format("LongMemEval", "haystack_sessions", has("haystack_sessions"), one(memory.longmemeval)),
    Format("MultiChallenge", "CONVERSATION", has("CONVERSATION"), one(plain.multichallenge)),
    Format("OASST", "prompt", trees.is_oasst_tree, one(trees.oasst_tree)),
    Format("OASST", "text", has("message_id", "parent_id"), trees.oasst_messages, trees.tree_of),
    Format("ChatGPT", "mapping", has_kind("mapping", dict), one(chatgpt)),
    Format("Claude", "chat_messages", has("chat_messages"), one(claude)),
    Format("Open-WebUI", "chat", has_kind("chat", dict), one(open_webui)),
    Format("llm logs", "prompt", llm_logs.is_llm_log, llm_logs.llm_logs, llm_logs.conversation_of),
    Format("LoCoMo", "session_1", memory.is_locomo, one(memory.locomo)),
    Format("ShareGPT", "conversations", has("conversations"), one(plain.sharegpt)),
    Format("WildChat", "conversation", has("conversation"), one(plain.conversation)),
    Format("OpenAI messages", "messages", has("messages"), one(plain.openai)),
    Format("OpenAI Responses", "input", plain.is_responses, one(plain.responses)),
    Format("a list of messages", "one", lambda record: len(plain.message_lists(record)) == 1, one(plain.listed)),
    Format("MT-Bench-101", "history", benchmarks.is_mt_bench_101, one(benchmarks.mt_bench_101)),
    Format("MT-Bench", "turns", benchmarks.is_mt_bench, one(benchmarks.mt_bench)),
    Format("aiperf", "turns", has("turns"), benchmarks.aiperf, benchmarks.session_of),
    Format("aiperf", "turns", has("session_id"), benchmarks.aiperf, benchmarks.session_of),
    Format("Ollama", "prompt", has("model", "prompt"), one(plain.generate)),
)
NAMES = ("loopserve", *dict.fromkeys(form.name for form in FORMATS), "vLLM multi-turn", "LMSYS-Chat")


def format_of(record: Any) -> Format | None:
    """The format whose fields a record has, if any."""
    if not isinstance(record, dict):
        return None
    return next((form for form in FORMATS if form.tells(record)), None)


__all__ = ["FORMATS", "NAMES", "Format", "Record", "format_of"]
