"""One engine, one event stream: token ids in, events with measurements out."""
