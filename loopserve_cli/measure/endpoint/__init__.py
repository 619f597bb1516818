"""A server that speaks OpenAI's chat completions, asked and timed as the local engine is."""
