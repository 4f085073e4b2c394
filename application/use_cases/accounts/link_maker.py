from application.ports.accounts import Link, UserRepository
from domain.errors import LinkInvalid


async def require_maker_administers(users: UserRepository, link: Link) -> None:
    """Raise `LinkInvalid` where whoever made a link for a password is no administrator any more.

    So nobody keeps a way into an account who may make none. What the command line made hangs on nobody.
    """
    if link.made_by is None:
        return
    maker = await users.get(link.made_by)
    if not maker.administrator or maker.deleted_at is not None:
        raise LinkInvalid("whoever made this link may make none any more: ask for another")
