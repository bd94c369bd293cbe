"""Paths of what is shared: inside a workspace, whatever they say."""

LONGEST = 500


def confined(path: str) -> str:
    """A path relative to the workspace's folder, letter by letter as given; raises ValueError.

    By its text alone: the service mounts no workspace. What a link in the volume leads to is
    decided where it is opened, in the server of whoever opens it, who finds there what is theirs.
    """
    spelled = path.removesuffix("/")
    if not spelled or len(spelled) > LONGEST:
        raise ValueError(f"a path of 1 to {LONGEST} characters is required")
    if not spelled.isprintable() or "\\" in spelled or "://" in spelled:
        raise ValueError("a path of printable characters is required, no address and no backslash")
    if spelled.startswith(("/", "~")):
        raise ValueError("a path relative to the workspace's folder is required")
    if any(part in ("", ".", "..") for part in spelled.split("/")):
        raise ValueError("a path without empty parts, `.` and `..` is required")
    return spelled
