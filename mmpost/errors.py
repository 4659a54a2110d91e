"""Every exception that mmpost raises on purpose.

    MmpostError
    |- ConfigError   (ValueError)   a key, a value or a combination of settings that cannot work
    |- PluginError   (LookupError)  a task, reward or model that cannot be found or has the wrong shape
    |- DataError     (ValueError)   a file, row or medium that cannot be used
    |- ColumnError   (KeyError)     an objective reads a column that no transform wrote
    |- TrainError    (RuntimeError) a run that cannot go on: non-finite loss, nothing to learn, an empty source

Messages say what was wanted, what was found, and what to do, in that order. An internal invariant is an `assert`;
one of these is something that a user can cause. To add one: it crosses a new boundary, and it is also a builtin.
"""


class MmpostError(Exception):
    """The root: the command line prints its message without a traceback."""

    def __str__(self) -> str:
        return " ".join(str(a) for a in self.args)


class ConfigError(MmpostError, ValueError):
    """A key, value or combination of settings that cannot work."""


class PluginError(MmpostError, LookupError):
    """A plug-in that cannot be found, or is not what was asked for."""


class DataError(MmpostError, ValueError):
    """A file, row or medium that cannot be used; names the file and row."""


class ColumnError(MmpostError, KeyError):
    """An objective reads a column that no transform wrote."""


class TrainError(MmpostError, RuntimeError):
    """A run that cannot go on."""
