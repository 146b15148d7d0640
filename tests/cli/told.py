"""What a command told on stderr, without how far loading is, which a slow or busy machine says, and without what computes on a GPU."""
import re

PASSING = re.compile(rb"loading |runnel: gpu\d+ \(.*\) computes \d+ of \d+ layers\n")


def told(stderr):
    """Text or bytes, as they came."""
    if isinstance(stderr, str):
        return told(stderr.encode()).decode()
    return b"".join(line for line in stderr.splitlines(keepends=True) if not PASSING.match(line))
