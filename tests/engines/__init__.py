"""One suite for all engines: what must hold, whatever carries the messages."""
