"""Finding pictures, naming their outputs, and the temporary files in between: the three parts under one name."""

from lumen_cli.imaging.sources import PICTURE_SUFFIXES, Source, find_pictures
from lumen_cli.imaging.targets import Job, check_writable, output_folders, plan_outputs
from lumen_cli.imaging.temporaries import TEMPORARY_PREFIX, replacing, sweep_temporaries, temporary_beside

__all__ = [
    "PICTURE_SUFFIXES",
    "TEMPORARY_PREFIX",
    "Job",
    "Source",
    "check_writable",
    "find_pictures",
    "output_folders",
    "plan_outputs",
    "replacing",
    "sweep_temporaries",
    "temporary_beside",
]
