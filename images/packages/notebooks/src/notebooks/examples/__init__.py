"""The example notebooks, and the made-up market that they work on."""
