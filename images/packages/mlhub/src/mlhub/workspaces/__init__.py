"""Workspaces of teams: what a role gives a pod (`mounts`), and the service that people manage them
by.

Keycloak's groups `/workspaces/<slug>/{owner,editor,viewer}` are the one truth about roles. The
service changes them and remembers nothing of them; any replica answers, and any may die.
"""
