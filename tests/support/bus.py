"""A service on a D-Bus bus that answers every call with a word: ``bus.py SOCKET NAME...``.

Run by a plain interpreter, as the user whose bus it is. Prints a line once it has all its names.
"""

import os
import socket
import struct
import sys

_PATH, _INTERFACE, _MEMBER, _REPLY_SERIAL, _DESTINATION, _SENDER, _SIGNATURE = 1, 2, 3, 5, 6, 7, 8
_CALL, _RETURN = 1, 2


def _padded(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)


def _string(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode() + b"\0"


def _message(kind: int, serial: int, fields: dict[int, tuple[str, bytes]], body: bytes) -> bytes:
    packed = b""
    for code, (signature, value) in fields.items():
        packed = _padded(packed, 8) + bytes((code, 1)) + signature.encode() + b"\0" + value
    head = struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), serial, len(packed))
    return _padded(head + packed, 8) + body


def _call(serial: int, member: str, signature: str, body: bytes) -> bytes:
    texts = {
        _PATH: ("o", "/org/freedesktop/DBus"),
        _INTERFACE: ("s", "org.freedesktop.DBus"),
        _MEMBER: ("s", member),
        _DESTINATION: ("s", "org.freedesktop.DBus"),
    }
    fields = {code: (kind, _string(text)) for code, (kind, text) in texts.items()}
    if signature:
        fields[_SIGNATURE] = ("g", bytes((len(signature),)) + signature.encode() + b"\0")
    return _message(_CALL, serial, fields, body)


def _exactly(bus: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = bus.recv(count - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data


def _read(bus: socket.socket) -> tuple[int, int, str]:
    """Kind, serial and sender of the next message."""
    head = _exactly(bus, 16)
    _, kind, _, _, length, serial, packed = struct.unpack("<cBBBIII", head)
    fields = _exactly(bus, packed + -packed % 8)
    _exactly(bus, length)
    at, sender = 0, ""
    while at < packed:
        at += -at % 8
        code, signature = fields[at], fields[at + 2 : at + 3]
        at += 4
        if signature == b"g":
            at += fields[at] + 2
        elif signature == b"u":
            at += 4
        else:
            (size,) = struct.unpack_from("<I", fields, at)
            text = fields[at + 4 : at + 4 + size].decode()
            sender = text if code == _SENDER else sender
            at += size + 5
    return kind, serial, sender


def main(path: str, names: list[str]) -> None:
    """Serve until the bus goes."""
    bus = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bus.connect(path)
    bus.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
    if not bus.recv(1000).startswith(b"OK"):
        sys.exit("refused")
    bus.sendall(b"BEGIN\r\n" + _call(1, "Hello", "", b""))
    for serial, name in enumerate(names, 2):
        body = _padded(_string(name), 4) + struct.pack("<I", 0)
        bus.sendall(_call(serial, "RequestName", "su", body))
    granted = 0
    while True:
        kind, serial, sender = _read(bus)
        granted += kind == _RETURN
        if kind == _RETURN and granted == len(names) + 1:
            os.write(1, b"ready\n")
        if kind == _CALL:
            fields = {
                _REPLY_SERIAL: ("u", struct.pack("<I", serial)),
                _DESTINATION: ("s", _string(sender)),
                _SIGNATURE: ("g", b"\1s\0"),
            }
            bus.sendall(_message(_RETURN, 99, fields, _string("heard")))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
