"""A dialogue: messages on one side, the engine's token ids on the other, and the template between them."""

from loopserve_cli.conversation.conversation import Conversation
from loopserve_cli.conversation.prefix import common_prefix

__all__ = ["Conversation", "common_prefix"]
