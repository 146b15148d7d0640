"""What a command told on stderr, without how far loading is: a slow or busy machine, where that takes seconds, writes lines of it."""


def told(stderr):
    """Text or bytes, as they came."""
    mark = b"loading " if isinstance(stderr, bytes) else "loading "
    return mark[:0].join(line for line in stderr.splitlines(keepends=True) if not line.startswith(mark))
