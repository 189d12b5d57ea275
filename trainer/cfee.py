"""The Compound Facial Expressions of Emotion database as it is released (Du, Tao & Martinez 2014; thesis 5.2.1): 230
people with 26 expressions each, CFEE_Database_230/01-04/Images1/EXPRESSION_PERSON_NUMBER.jpg, expression 01 neutral.

Sorted by name, a person's neutral picture comes first: it is the photo of evaluations.
"""

import re
from pathlib import Path

FOLDER = re.compile(r"Images\d+")
PICTURE = re.compile(r"(?P<expression>\d\d)_(?P<person>\d{3})_\d+")


def person(path: Path) -> str | None:
    """Who a picture shows, the same in every folder of the release; None for a file that is not of it."""
    found = PICTURE.fullmatch(path.stem)
    return f"CFEE/{found['person']}" if found and FOLDER.fullmatch(path.parent.name) else None
