from dataclasses import dataclass
from typing import final

from application.ports.accounts import Link, LinkRepository
from application.ports.clock import Clock
from application.ports.keyed_hash import KeyedHash
from application.use_cases.accounts.new_link import link_digest


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShowLink:
    """Tell what a one-time link is for, to whoever has it, without using it up."""

    links: LinkRepository
    keyed_hash: KeyedHash
    clock: Clock

    async def __call__(self, *, token: str) -> Link:
        return await self.links.find(link_digest(self.keyed_hash, token), now=self.clock.now())
