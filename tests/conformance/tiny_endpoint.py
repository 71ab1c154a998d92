#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The beginning of an endpoint in another language: it answers contacts.

It holds the kit's rules about versions and fails nearly all others; README.md,
"A program of your own", says what it speaks.
"""

import socket
import struct
import sys

INITIATE_CONTACT = 14
VERSION_RESPONSE = 15
VERSIONS = (0x00040000, 0x00050003)


def answer(messages, payload):
    kind, _, version = struct.unpack_from("<III", payload.ljust(12, b"\0"))
    if kind != INITIATE_CONTACT or len(payload) < 40:
        return
    known = version in VERSIONS
    word = 1 if version >= 0x00050000 else version
    response = struct.pack("<IIII", VERSION_RESPONSE, 0, known,
                           word if known else 0)
    messages.send(struct.pack("<IBBHQ", 1, len(response), 0, 0, 0) + response)


def main():
    messages = socket.socket(fileno=7)
    messages.setblocking(False)
    for line in sys.stdin:
        word = line.split()[0]
        if word == "quit":
            return
        if word == "sync":
            while True:
                try:
                    frame = messages.recv(512)
                except BlockingIOError:
                    break
                answer(messages, frame[16:])
        known = word in ("start", "sync")
        print("ok" if known else "unsupported", flush=True)


if __name__ == "__main__":
    main()
