"""Receipts as anybody can check them."""

import base64
import binascii
from collections.abc import Collection, Mapping
from typing import Any, Final, cast

from application.ports.receipts import ReceiptSigner
from domain.erasure import Receipt, canonical
from domain.errors import ReceiptInvalid

ALGORITHM: Final = "Ed25519"

SignedReceipt = Mapping[str, object]
"""A receipt's statement, and under `signature` what makes it one: over `canonical` of all the rest."""


def signed(receipt: Receipt, signer: ReceiptSigner) -> dict[str, object]:
    """Return a receipt with its signature."""
    return _with_signature(receipt.statement(), signer)


def is_finished(receipt: SignedReceipt) -> bool:
    """Whether it was written behind the erasing transaction: the one of before names no index."""
    return bool(_part(receipt, "destroyed")["index_entries"])


def finished(
    receipt: SignedReceipt, signer: ReceiptSigner, *, indexes: Collection[str], waiting: int
) -> dict[str, object]:
    """Return one that was not, with the ledger written, and but `waiting` references gone from these indexes."""
    destroyed, left = _part(receipt, "destroyed"), _part(receipt, "still_being_removed")
    statement = {
        **receipt,
        "destroyed": {**destroyed, "index_entries": dict.fromkeys(indexes, destroyed["references"] - waiting)},
        "still_being_removed": {**left, "references": waiting, "ledger": False},
    }
    del statement["signature"]
    return _with_signature(statement, signer)


def _part(receipt: SignedReceipt, name: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", receipt[name])


def _with_signature(statement: Mapping[str, object], signer: ReceiptSigner) -> dict[str, object]:
    return {
        **statement,
        "signature": {
            "algorithm": ALGORITHM,
            "public_key": _text(signer.public_key),
            "value": _text(signer.sign(canonical(statement))),
        },
    }


def public_key_of(signer: ReceiptSigner) -> dict[str, str]:
    """Return what receipts are checked with."""
    return {"algorithm": ALGORITHM, "public_key": _text(signer.public_key)}


def require_signed(receipt: SignedReceipt, signer: ReceiptSigner) -> None:
    """Raise `ReceiptInvalid` unless this installation signed it, and nobody changed it since."""
    statement = {name: value for name, value in receipt.items() if name != "signature"}
    signature = receipt.get("signature")
    try:
        value = signature["value"] if isinstance(signature, Mapping) else None
        good = isinstance(value, str) and signer.signed(canonical(statement), base64.b64decode(value, validate=True))
    except (KeyError, ValueError, binascii.Error):
        good = False
    if not good:
        raise ReceiptInvalid("this receipt was changed, or another installation signed it")


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
