"""Reading and writing pictures: the parts under one name."""

from lumen_cli.imaging.formats import format_for, suffix_for
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.reading import read_picture
from lumen_cli.imaging.writing import changes, losses, write_picture

__all__ = ["Picture", "changes", "format_for", "losses", "read_picture", "suffix_for", "write_picture"]
