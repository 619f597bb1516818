"""What is made of measured turns. Commands that measure (replay, bench) read from here."""
