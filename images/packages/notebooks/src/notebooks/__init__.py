"""What a person's notebook server has of mlhub: examples, activity reports, the start command."""
