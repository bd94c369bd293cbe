"""Backup, restore and the way back of a stack: docs/recovery.md."""
