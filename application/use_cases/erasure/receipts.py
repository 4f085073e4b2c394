"""Receipts as anybody can check them."""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from application.ports.receipts import ReceiptSigner
from domain.erasure import Receipt, canonical
from domain.errors import ReceiptInvalid

ALGORITHM: Final = "Ed25519"

SignedReceipt = Mapping[str, object]
"""A receipt's statement, and under `signature` what makes it one: over `canonical` of all the rest."""


def signed(receipt: Receipt, signer: ReceiptSigner) -> dict[str, object]:
    """Return a receipt with its signature."""
    statement = receipt.statement()
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
