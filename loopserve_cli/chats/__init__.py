"""`loopserve chats`: the saved dialogues, newest first, and what was said in them."""
