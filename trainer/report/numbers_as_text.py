"""Numbers as people read them."""

NONE = "—"
"""What stands for a value that does not exist."""


def bytes_text(count: int) -> str:
    """Return a number of bytes to three digits, in powers of 1000: `7.47 MB`."""
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            return f"{size:#.3g}".rstrip(".") + f" {unit}"
        size /= 1000
    return f"{size:.3g} PB"


def count_text(count: float) -> str:
    """Return a whole number with its thousands apart."""
    return f"{count:,.0f}".replace(",", "\u202f")


def number_text(value: float | None, decimals: int = 3) -> str:
    """Return a number with a fixed count of decimals and a proper minus, or a dash where there is none."""
    return NONE if value is None else f"{value:.{decimals}f}".replace("-", "−")


def signed_text(value: float, decimals: int = 3) -> str:
    """Return a number that always shows its sign."""
    return f"{value:+.{decimals}f}".replace("-", "−")
