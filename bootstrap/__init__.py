"""What a bare machine lacks: the engine, its plug-ins, a one-node cluster, a base image.

Nothing of the program imports this package; a machine with a cluster of its own never runs it.
"""
