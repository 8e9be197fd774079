"""The installed version of this package."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("lightning-optim")
except PackageNotFoundError:  # a checkout that is not installed
    VERSION = "0+unknown"
