"""What every refusal of data raises."""


class DataError(ValueError):
    """Data that cannot be found, read or used as asked; the message names the place and the remedy."""
