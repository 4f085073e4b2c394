from dataclasses import dataclass
from typing import final

from application.ports.accounts import Link, LinkPurpose, LinkRepository, UserRepository
from application.ports.clock import Clock
from application.ports.keyed_hash import KeyedHash
from application.use_cases.accounts.link_maker import require_maker_administers
from application.use_cases.accounts.new_link import link_digest


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShowLink:
    """Tell what a one-time link is for, to whoever has it, without using it up."""

    users: UserRepository
    links: LinkRepository
    keyed_hash: KeyedHash
    clock: Clock

    async def __call__(self, *, token: str) -> Link:
        link = await self.links.find(link_digest(self.keyed_hash, token), now=self.clock.now())
        if link.purpose is LinkPurpose.PASSWORD:
            await require_maker_administers(self.users, link)
        return link
