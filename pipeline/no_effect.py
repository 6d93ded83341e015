"""The error of a key that another key makes idle."""


class NoEffect(ValueError):
    """A key was set that has no effect, because of what another key of its section says. Raised by a section's validators.

    A key of the configuration file that a command-line override makes idle is dropped (launch.config.idle).
    """
