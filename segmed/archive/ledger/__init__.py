"""The ledger: state of every study of an archive."""

from segmed.archive.ledger.ledger import Ledger
from segmed.archive.ledger.tables import Entry, State

__all__ = ["Entry", "Ledger", "State"]
