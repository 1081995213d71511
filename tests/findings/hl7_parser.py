"""A strict parser of ORU^R01 messages of HL7 v2.5.1."""

from __future__ import annotations

import re

ESCAPES = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}
REQUIRED = {"MSH": (9, 10, 11, 12), "PID": (3, 5), "OBR": (4,), "NTE": (3,), "OBX": (3, 11)}
"""Fields that HL7 v2.5.1 requires of the segments of an ORU^R01."""


def parsed(message: str) -> list[list[str]]:
    """The segments of a message, fields by number; anything out of order fails."""
    assert message.endswith("\r")
    assert "\n" not in message
    found = []
    for line in message[:-1].split("\r"):
        fields = line.split("|")
        assert re.fullmatch(r"[A-Z][A-Z0-9]{2}", fields[0])
        if fields[0] == "MSH":
            fields.insert(1, "|")
            assert fields[2] == "^~\\&"
        for number in REQUIRED[fields[0]]:
            assert fields[number], (fields[0], number)
        found.append(fields)
    names = [fields[0] for fields in found]
    assert re.fullmatch("MSH PID OBR( NTE)?( OBX)+", " ".join(names))
    numbers = [int(fields[1]) for fields in found if fields[0] == "OBX"]
    assert numbers == list(range(1, len(numbers) + 1))
    return found


def plain(text: str) -> str:
    """A component without its escapes."""
    return re.sub(r"\\([FSTRE])\\", lambda found: ESCAPES[found[1]], text)
