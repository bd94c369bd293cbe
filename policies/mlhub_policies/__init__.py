"""The organization's rules over a stack: pure functions over what the engine is about to make."""
