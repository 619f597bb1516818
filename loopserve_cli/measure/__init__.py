"""What is measured, kept and made of it, for every command that measures; it loads no torch."""
