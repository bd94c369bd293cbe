"""Notebooks that run unattended: an HTTP API whose every run is a Job in its person's own pod.

The service holds no home and runs no notebook. It asks who is calling, what is asked and whether
there is room, makes the Job, and tells what became of it; `notebooks.jobs` is what runs inside.
Kubernetes and the database are the truth, so any replica answers, and any may die.
"""
