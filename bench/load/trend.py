"""Does a series of samples grow? The slope by least squares over its last two thirds, and how much is allowed."""
import math
import statistics
from dataclasses import dataclass

FROM_SHARE = 1 / 3  # what comes before belongs to the start
N_BINS = 20         # the median of each counts: what one kill or one long prompt does is no trend
SHORTEST_S = 300    # a run that is shorter tells of no trend


@dataclass
class Limit:
    """What a series may grow by over the time that is looked at: so much, or so large a share of its level."""
    absolute: float
    share: float = 0.0

    def of(self, level):
        return max(self.absolute, self.share * level)


# RssAnon + VmSwap in MiB; open descriptors; milliseconds of the probing request.
MEMORY, MEMORY_OF_ALL, DESCRIPTORS, LATENCY = Limit(8), Limit(16), Limit(4), Limit(20, 0.25)


def medians(samples, n_bins):
    """(time, value) pairs in order to as many medians, or fewer where there is nothing."""
    if not samples:
        return []
    begin, end = samples[0][0], samples[-1][0]
    bins = [[] for _ in range(n_bins)]
    for sample in samples:
        share = (sample[0] - begin) / (end - begin) if end > begin else 0
        bins[min(int(share * n_bins), n_bins - 1)].append(sample)
    return [(statistics.fmean(at for at, _ in one), statistics.median(value for _, value in one)) for one in bins if one]


def fit(samples):
    """Of the line that fits best: values a second, and how far chance alone takes that (its standard error)."""
    if len(samples) < 3:
        return 0.0, 0.0
    middle, level = (statistics.fmean(sample[i] for sample in samples) for i in (0, 1))
    spread = sum((at - middle) ** 2 for at, _ in samples) or 1
    slope = sum((at - middle) * (value - level) for at, value in samples) / spread
    rest = sum((value - level - slope * (at - middle)) ** 2 for at, value in samples)
    return slope, math.sqrt(rest / (len(samples) - 2) / spread)


def judge(samples, n_seconds, limit):
    """What a series does over the last two thirds of a run: its level, how much the line grows, how much it may, whether it is flat."""
    late = medians([sample for sample in samples if sample[0] >= n_seconds * FROM_SHARE], N_BINS)
    level = statistics.median(value for _, value in late) if late else 0.0
    growth, chance = (a_second * n_seconds * (1 - FROM_SHARE) for a_second in fit(late))
    allowed = max(limit.of(level), 2 * chance)
    return {"level": level, "growth": growth, "limit": allowed, "flat": growth <= allowed}
