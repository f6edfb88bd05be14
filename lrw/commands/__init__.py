"""The command line's commands, a module each: `add` declares its options, and what runs it."""
