"""What goes wrong because of what the user gave: one clear sentence, exit code 2."""


class UserError(Exception):
    """Bad input, missing data or wrong use. The text is one sentence that names the file or option and the mend."""


class DataError(UserError):
    """A data set that is missing, incomplete or broken in a way that skipping a picture cannot mend."""
