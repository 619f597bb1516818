"""The demo model: its language, its dialogues, its training, its files."""
