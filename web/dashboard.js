// dashboard.js: how the server is, drawn from /metrics, which holds nobody's text. Asks only while it is looked at.

import {Chart} from "./chart.js";
import {quantile, rate, Reading} from "./metrics.js";
import {getHealth, getText, ServerError} from "./server.js";

const EVERY_MS = 1500;
const SPAN_MS = 5 * 60000;
const MINUTE_MS = 60000;

const FIRST = "vllm:time_to_first_token_seconds";
const GAP = "vllm:inter_token_latency_seconds";

function formatTime(seconds) {
    if (!Number.isFinite(seconds))
        return "\u2013";
    if (seconds < 1)
        return `${(seconds * 1000).toPrecision(seconds < 0.01 ? 2 : 3).replace(/\.0+$/, "")} ms`;
    return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}

const formatNumber = value => Number.isFinite(value) ?
    value.toLocaleString("en", {maximumFractionDigits: value < 10 ? 1 : 0}) : "\u2013";
const formatPercent = value => Number.isFinite(value) ? `${value > 0 && value < 10 ? value.toFixed(1) : Math.round(value)} %` : "\u2013";

function formatBytes(bytes) {
    if (!Number.isFinite(bytes))
        return "\u2013";
    return bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`;
}

const hitRate = (now, before) => {
    const grown = name => (now.value(name) ?? 0) - (before?.value(name) ?? 0);
    const queries = grown("vllm:prefix_cache_queries_total");
    return queries > 0 ? 100 * grown("vllm:prefix_cache_hits_total") / queries : undefined;
};

// The last minute's value and below it the one since the start, which stands alone if the last minute saw nothing.
const spread = (name, share) => (now, before, minute) => {
    const recent = minute ? quantile(name, share, minute, now) : undefined;
    const all = formatTime(quantile(name, share, null, now));
    return recent === undefined ? [all, "since the start"] : [formatTime(recent), `last minute; ${all} since the start`];
};

// Each tile: its id, title, and from (now, the reading before, the one a minute ago) its value and a line below it.
const tiles = [
    ["running", "Running", now => [formatNumber(now.value("vllm:num_requests_running")), "answers being written"]],
    ["waiting", "Waiting", now => [formatNumber(now.value("vllm:num_requests_waiting")), "for a place"]],
    ["speed", "Tokens a second", (now, before) => [
        formatNumber(rate("vllm:generation_tokens_total", before, now)),
        `${formatNumber(rate("vllm:prompt_tokens_total", before, now))} read a second`]],
    ["first-50", "First token, median", spread(FIRST, 0.5)],
    ["first-95", "First token, 95\u00a0%", spread(FIRST, 0.95)],
    ["gap-50", "Between tokens, median", spread(GAP, 0.5)],
    ["gap-95", "Between tokens, 95\u00a0%", spread(GAP, 0.95)],
    ["gap-99", "Between tokens, 99\u00a0%", spread(GAP, 0.99)],
    ["pages", "Pages in use", now => {
        const pages = state => now.value("runnel_kv_pages", {state}) ?? 0;
        const all = pages("used") + pages("cached") + pages("free");
        return [formatPercent(all ? 100 * pages("used") / all : undefined),
            `${formatNumber(pages("used"))} of ${formatNumber(all)}, ${formatNumber(pages("cached"))} kept for reuse`];
    }],
    ["cache", "Found in the cache", (now, before, minute) => {
        const recent = minute ? hitRate(now, minute) : undefined;
        const all = formatPercent(hitRate(now, null));
        return recent === undefined ? [all, "of prompts, since the start"] :
            [formatPercent(recent), `of prompts, last minute; ${all} since the start`];
    }],
    ["memory", "Memory", now => [formatPercent(now.value("deepseek_memory_percent")),
        `of the limit; ${formatBytes(now.value("process_resident_memory_bytes"))} here`]],
    ["breaker", "Breaker", describeBreaker],
];

function describeBreaker(now, before, minute, health) {
    const words = {ok: ["closed", "all is served in full"], degraded: ["open", "answers are kept shorter"],
        draining: ["ending", "nothing new is taken"], "loading model": ["loading", "not ready yet"],
        wedged: ["stuck", "restart the server"], unreachable: ["\u2013", "no answer"]};
    const [value, detail] = words[health.status] ?? [health.status ?? "\u2013", ""];
    return [value, health.reason ?? detail, health.status === "ok" ? "" : "warning"];
}

const charts = [
    ["Tokens a second", [["written", "first"], ["read", "second"]], formatNumber, undefined, (now, before) =>
        [rate("vllm:generation_tokens_total", before, now), rate("vllm:prompt_tokens_total", before, now)]],
    ["Requests", [["running", "first"], ["waiting", "second"]], formatNumber, undefined, now =>
        [now.value("vllm:num_requests_running"), now.value("vllm:num_requests_waiting")]],
    ["First token, last minute", [["median", "first"], ["95\u00a0%", "second"]], formatTime, undefined, (now, before, minute) =>
        [quantile(FIRST, 0.5, minute, now), quantile(FIRST, 0.95, minute, now)]],
    ["Between tokens, last minute", [["median", "first"], ["95\u00a0%", "second"]], formatTime, undefined, (now, before, minute) =>
        [quantile(GAP, 0.5, minute, now), quantile(GAP, 0.95, minute, now)]],
    ["Pages", [["in use", "first"], ["kept", "second"]], formatPercent, 100, now => {
        const pages = state => now.value("runnel_kv_pages", {state}) ?? 0;
        const all = pages("used") + pages("cached") + pages("free");
        return all ? [100 * pages("used") / all, 100 * pages("cached") / all] : [];
    }],
    ["Memory", [["of the limit", "first"]], formatPercent, 100, now => [now.value("deepseek_memory_percent")]],
];

export class Dashboard {
    #readings = [];   // of the last five minutes and a little, the oldest first
    #points = charts.map(() => []);
    #tiles = new Map();
    #charts;
    #span;
    #state;
    #visible = false;
    #timer = 0;
    #asking = false;

    constructor(view) {
        this.#state = view.querySelector("#dashboard-state");
        this.#span = view.querySelector("#charts-span");
        const box = view.querySelector("#tiles");
        for (const [id, title] of tiles) {
            const value = document.createElement("p");
            value.className = "value";
            value.textContent = "\u2013";
            const detail = document.createElement("p");
            detail.className = "detail";
            const heading = document.createElement("h3");
            heading.textContent = title;
            const tile = document.createElement("section");
            tile.className = "tile";
            tile.id = `tile-${id}`;
            tile.append(heading, value, detail);
            box.append(tile);
            this.#tiles.set(id, {tile, value, detail});
        }
        this.#charts = charts.map(([title, series, format, max]) =>
            new Chart(title, series.map(([name, className]) => ({name, className})), {format, max}));
        view.querySelector("#charts").append(...this.#charts.map(chart => chart.element));
        document.addEventListener("visibilitychange", () => this.#schedule());
    }

    setVisible(isVisible) {
        this.#visible = isVisible;
        this.#schedule();
    }

    #schedule() {
        clearTimeout(this.#timer);
        if (this.#visible && !document.hidden && !this.#asking)
            this.#ask();
    }

    async #ask() {
        this.#asking = true;
        try {
            const [text, health] = await Promise.all([getText("/metrics"), getHealth()]);
            this.#take(new Reading(text, performance.now()), health);
            this.#state.textContent = `Up for ${formatAge(this.#now().value("process_start_time_seconds"))}`;
            this.#state.classList.remove("error");
        } catch (error) {
            this.#state.textContent = error.status === 401 ?
                "This server asks for an API key: enter it in the settings." : error.message;
            this.#state.classList.add("error");
            if (!(error instanceof ServerError))
                console.error(error);
        }
        this.#asking = false;
        clearTimeout(this.#timer);
        if (this.#visible && !document.hidden)
            this.#timer = setTimeout(() => this.#ask(), EVERY_MS);
    }

    #now() {
        return this.#readings.at(-1);
    }

    #take(now, health) {
        const last = this.#now();
        const startedAnew = last && now.value("process_start_time_seconds") !== last.value("process_start_time_seconds");
        if (startedAnew) {
            this.#readings = [];
            this.#points = charts.map(() => []);
        }
        const before = this.#now() ?? now;
        // Fewer than a minute's readings: what was counted before them is since the start of looking.
        const minute = this.#readings.findLast(reading => now.atMs - reading.atMs >= MINUTE_MS) ?? this.#readings[0] ?? null;
        this.#readings.push(now);
        while (now.atMs - this.#readings[0].atMs > MINUTE_MS + 10 * EVERY_MS)
            this.#readings.shift();
        this.#showTiles(now, before, minute, health);
        this.#showCharts(now, before, minute);
    }

    #showTiles(now, before, minute, health) {
        for (const [id, , describe] of tiles) {
            const {tile, value, detail} = this.#tiles.get(id);
            const [text, below, className] = describe(now, before, minute, health);
            value.textContent = text;
            detail.textContent = below;
            tile.classList.toggle("warning", className === "warning");
        }
    }

    // As many whole minutes as have been looked at, five at most.
    #showCharts(now, before, minute) {
        const oldest = this.#points[0][0]?.atMs ?? now.atMs;
        const nMinutes = Math.max(1, Math.min(SPAN_MS / MINUTE_MS, Math.ceil((now.atMs - oldest) / MINUTE_MS)));
        this.#span.textContent = nMinutes === 1 ? "The last minute" : `The last ${nMinutes} minutes`;
        charts.forEach(([, , , , measure], i) => {
            const points = this.#points[i];
            points.push({atMs: now.atMs, values: measure(now, before, minute)});
            while (now.atMs - points[0].atMs > SPAN_MS)
                points.shift();
            this.#charts[i].draw(points, now.atMs, nMinutes * MINUTE_MS);
        });
    }
}

function formatAge(startSeconds) {
    const minutes = Math.max(0, Math.round((Date.now() / 1000 - startSeconds) / 60));
    if (minutes < 60)
        return `${minutes} min`;
    return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} days`;
}
