"""Numbers as text for people."""

NONE = "—"
"""Text for a value that does not exist."""


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
    """Return a whole number with thousands separated."""
    return f"{count:,.0f}".replace(",", "\u202f")


def number_text(value: float | None, decimals: int = 3) -> str:
    """Return a number with fixed decimals and a proper minus sign, or a dash for None."""
    return NONE if value is None else f"{value:.{decimals}f}".replace("-", "−")


def signed_text(value: float, decimals: int = 3) -> str:
    """Return a number that always shows its sign."""
    return f"{value:+.{decimals}f}".replace("-", "−")


def duration_text(seconds: float) -> str:
    """Return a duration in the two largest units that it has: `2 h 5 min`, `41 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count) or "0 s"
