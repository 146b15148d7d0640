// metrics.js: Prometheus' text to numbers, and what can be told from two readings of it. Knows nothing of the page.

const line = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const label = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

function toNumber(text) {
    if (text === "+Inf")
        return Infinity;
    return text === "-Inf" ? -Infinity : Number(text);
}

// One reading: value(name, labels) sums all that fit; buckets(name) is a histogram's cumulative buckets.
export class Reading {
    #samples = new Map();

    constructor(text, atMs) {
        this.atMs = atMs;
        for (const row of text.split("\n")) {
            const match = row.startsWith("#") ? null : line.exec(row);
            if (!match)
                continue;
            const [, name, labelText, value] = match;
            const labels = Object.fromEntries([...(labelText ?? "").matchAll(label)].map(([, key, text]) => [key, text]));
            if (!this.#samples.has(name))
                this.#samples.set(name, []);
            this.#samples.get(name).push({labels, value: toNumber(value)});
        }
    }

    has(name) {
        return this.#samples.has(name);
    }

    value(name, wanted = {}) {
        const fitting = (this.#samples.get(name) ?? [])
            .filter(({labels}) => Object.entries(wanted).every(([key, value]) => labels[key] === value));
        return fitting.length ? fitting.reduce((sum, {value}) => sum + value, 0) : undefined;
    }

    samples(name) {
        return this.#samples.get(name) ?? [];
    }

    buckets(name) {
        return (this.#samples.get(`${name}_bucket`) ?? [])
            .map(({labels, value}) => ({le: toNumber(labels.le), count: value}))
            .sort((a, b) => a.le - b.le);
    }
}

// How much a counter grew a second between two readings; a server that was started anew counts from 0.
export function rate(name, before, now, labels) {
    const seconds = (now.atMs - before.atMs) / 1000;
    const grown = (now.value(name, labels) ?? 0) - (before.value(name, labels) ?? 0);
    return seconds > 0 && grown >= 0 ? grown / seconds : 0;
}

// The share-th part (0.5: the median) of what a histogram saw since `before` (null: since the start), in seconds, between
// the bounds of a bucket as Prometheus reckons it. undefined: it saw nothing.
export function quantile(name, share, before, now) {
    const earlier = before ? before.buckets(name) : [];
    const buckets = now.buckets(name).map(({le, count}, i) => ({le, count: count - (earlier[i]?.count ?? 0)}));
    const total = buckets.at(-1)?.count ?? 0;
    if (total <= 0)
        return undefined;
    const rank = share * total;
    const at = buckets.findIndex(({count}) => count >= rank);
    const lower = at > 0 ? buckets[at - 1] : {le: 0, count: 0};
    const {le, count} = buckets[at];
    if (!Number.isFinite(le))
        return lower.le;
    return count > lower.count ? lower.le + (le - lower.le) * (rank - lower.count) / (count - lower.count) : le;
}
