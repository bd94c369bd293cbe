"""What runs inside a run's Job, in the person's own image, as the person: nothing else may touch
their home. The service that makes the Jobs is `mlhub.execution`; the two share no code, only
`MLHUB_RUN` (JSON in the environment), the log, and the pod's termination message (JSON).
"""
