"""A classic BPF machine, as seccomp runs it: enough to ask a filter what it would say."""

import struct
from dataclasses import dataclass

MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Call:
    """``struct seccomp_data`` without the instruction pointer."""

    number: int
    arch: int
    arguments: tuple[int, ...] = ()

    def word(self, offset: int) -> int:
        """The 32-bit word at ``offset``; the machines here are little-endian."""
        padded = (*self.arguments, 0, 0, 0, 0, 0, 0)[:6]
        data = struct.pack("<IIQ6Q", self.number, self.arch, 0, *padded)
        return struct.unpack_from("<I", data, offset)[0]


def check(program: bytes) -> None:
    """What the kernel's checker asks: known opcodes, jumps forward and inside, an end."""
    count = len(program) // 8
    assert len(program) % 8 == 0
    assert 0 < count <= 4096
    for position in range(count):
        code, jt, jf, k = struct.unpack_from("<HBBI", program, position * 8)
        assert code in (0x20, 0x54, 0x06, 0x15, 0x25, 0x35, 0x45)
        if code == 0x20:
            assert k % 4 == 0
            assert k < 64
        if code & 7 == 5:
            assert position + 1 + max(jt, jf) < count
    assert struct.unpack_from("<H", program, (count - 1) * 8)[0] == 0x06


def run(program: bytes, call: Call) -> int:
    """The verdict on ``call``: a SECCOMP_RET_* value."""
    accumulator, position = 0, 0
    while True:
        code, jt, jf, k = struct.unpack_from("<HBBI", program, position * 8)
        position += 1
        if code == 0x06:
            return k
        if code == 0x20:
            accumulator = call.word(k)
        elif code == 0x54:
            accumulator &= k
        else:
            holds = {
                0x15: accumulator == k,
                0x25: accumulator > k,
                0x35: accumulator >= k,
                0x45: bool(accumulator & k),
            }[code]
            position += jt if holds else jf
