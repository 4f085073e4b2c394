"""Names and values, one below the other."""

from rich.table import Table


def facts(*rows: tuple[str, str]) -> Table:
    """Return a table of names and values; values are rich's markup."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table
