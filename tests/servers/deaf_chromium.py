#!/usr/bin/env python3
"""Run the browser that CHROMIUM names, with these arguments, unaware of changes of the machine's network.

Whenever a network interface gets or loses an address, Chromium fails the requests that wait for a connection, even
those to the loopback (net::ERR_NETWORK_CHANGED). Docker adds and removes interfaces with each container while browser
tests run. Chromium learns of them from the kernel through a netlink socket, and works without one. It has no option for
that, so a seccomp filter for this process and its children denies the socket.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
# The number of the system call `socket`. On other machines, Chromium runs as it is.
SOCKET = {"x86_64": 41, "aarch64": 198}
# Offsets in the description of a system call (struct seccomp_data): its number, and the first argument's lower half.
NUMBER, FIRST_ARGUMENT = 0, 16
# Instructions of the filter (linux/bpf_common.h): load a word, jump if it is equal, return.
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def refuse_netlink(number_of_socket: int) -> None:
    """Deny netlink sockets from now on. Raise OSError if that is impossible."""
    # Each instruction: its code, how many to skip if a comparison is true and if it is false, and its operand.
    instructions = [
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_EQUAL, 0, 3, number_of_socket),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_EQUAL, 0, 1, socket.AF_NETLINK),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EAFNOSUPPORT),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
    program = Program(len(instructions), ctypes.addressof(packed))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl failed")


if __name__ == "__main__":
    if number := SOCKET.get(platform.machine()):
        refuse_netlink(number)
    os.execv(os.environ["CHROMIUM"], [os.environ["CHROMIUM"], *sys.argv[1:]])
