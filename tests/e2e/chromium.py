#!/usr/bin/env python3
"""Chromium, to which the addresses of the machine stay the same: takes Chromium's own arguments.

The browser of these tests is on the node itself, where each pod that starts or ends changes the
machine's addresses. Chromium takes that for another network and gives up whatever waits for a
connection (`net::ERR_NETWORK_CHANGED`): a lab with six requests on their way loses the seventh.
Nobody's browser is on a node, so here it hears of none: the kernel refuses it the sockets by which
it would. Chromium goes on without (`net/base/address_tracker_linux.cc`, `AbortAndForceOnline`).
"""

import ctypes
import errno
import os
import socket
import struct
import sys

CHROMIUM = "/usr/bin/chromium"
NO_NEW_PRIVILEGES, SET_FILTER, FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
SOCKET = 41  # the call's number on x86_64, which bootstrap/preflight.py demands
NUMBER, FIRST_ARGUMENT = 0, 16  # in struct seccomp_data

PROGRAM = (
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 0, 3, SOCKET),
    (LOAD, 0, 0, FIRST_ARGUMENT),
    (EQUAL, 0, 1, socket.AF_NETLINK),
    (RETURN, 0, 0, REFUSE | errno.EAFNOSUPPORT),
    (RETURN, 0, 0, ALLOW),
)


class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_char_p))


def refuse_netlink() -> None:
    """For this process and whatever it becomes. Raises OSError where the kernel does not do it."""
    code = b"".join(struct.pack("HBBI", *each) for each in PROGRAM)
    control = ctypes.CDLL(None, use_errno=True).prctl
    asked = ctypes.byref(Filter(len(PROGRAM), code))
    if control(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or control(SET_FILTER, FILTER, asked, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


if __name__ == "__main__":
    refuse_netlink()
    os.execv(CHROMIUM, [CHROMIUM, *sys.argv[1:]])  # noqa: S606
