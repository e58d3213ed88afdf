"""What goes wrong because of what the user gave: one clear sentence, exit code 2."""


class UserError(Exception):
    """Bad input, missing data or wrong use. The text is one sentence that names the file or option and the mend."""


class DataError(UserError):
    """A data set that is missing, incomplete or broken in a way that skipping a picture cannot mend."""


class BrokenFilesError(UserError):
    """Files of the leaderboard's folder that cannot be read: a sentence for each, and what was done without them."""


class Failure(str):
    """A line on what went wrong, where a plain one says only what is not here to be judged."""

    code = 1
    """The command's exit code."""


class Lacking(Failure):
    """A line on data that was asked for by name and is not here."""

    code = 2


class TrainingError(Exception):
    """Training cannot go on (a loss that is not finite); one sentence."""
