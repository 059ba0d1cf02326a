"""Sends one UDP datagram as a raw frame, whatever its source says: gateway, source, target, port."""

import socket
import struct
import sys

gateway, source, target, port = sys.argv[1:]
# The gateway's link address, which the kernel learns by asking.
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.sendto(b"", (gateway, 9))


def neighbour():
    while True:
        for line in open("/proc/net/arp").read().splitlines()[1:]:
            address, _, flags, mac, *_ = line.split()
            if address == gateway and flags != "0x0":
                return bytes.fromhex(mac.replace(":", ""))


def checksum(header):
    total = sum(struct.unpack("!%dH" % (len(header) // 2), header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


payload = b"forged"
udp = struct.pack("!HHHH", 40000, int(port), 8 + len(payload), 0) + payload
ends = socket.inet_aton(source) + socket.inet_aton(target)
header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + ends
header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
own = bytes.fromhex(open("/sys/class/net/eth0/address").read().strip().replace(":", ""))
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0x0800))
raw.send(neighbour() + own + b"\x08\x00" + header + udp)
