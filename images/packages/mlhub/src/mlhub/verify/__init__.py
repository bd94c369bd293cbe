"""Does a stack work for a person? Asked by being one (row T12).

A temporary person is made in Keycloak, logs in by the log-in page, starts a server of each profile
that can run now, writes and reads, lets the execution API run a notebook that talks to MLflow, is
refused what should be refused, and is removed again. Everything goes over the published addresses,
in a pod by the Services behind them; nothing of the platform is reached around.
"""
