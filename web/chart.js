// chart.js: a small line chart as SVG, of one or two series over the last minutes.

const NS = "http://www.w3.org/2000/svg";
const WIDTH = 320, HEIGHT = 96, LEFT = 2, RIGHT = 2, TOP = 8, BOTTOM = 4;

function makeSvg(tag, attributes = {}) {
    const element = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes))
        element.setAttribute(name, value);
    return element;
}

// The next of 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15 ... at or above a value.
export function roundUp(value) {
    if (!(value > 0))
        return 1;
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map(step => step * power).find(step => step >= value * 0.999);
}

export class Chart {
    // series: [{name, className}]; format(value) writes a value.
    constructor(title, series, {format, max}) {
        this.series = series;
        this.format = format;
        this.fixedMax = max;
        this.svg = makeSvg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img"});
        this.lines = series.map(({className}) => {
            const area = makeSvg("path", {class: `area ${className}`});
            const line = makeSvg("path", {class: `line ${className}`});
            this.svg.append(area, line);
            return {area, line};
        });
        this.svg.prepend(...[0, 0.5, 1].map(share => {
            const y = TOP + share * (HEIGHT - TOP - BOTTOM);
            return makeSvg("path", {class: "grid", d: `M0 ${y}H${WIDTH}`});
        }));
        this.top = document.createElement("span");
        this.top.className = "top";
        this.legend = document.createElement("p");
        this.legend.className = "legend";
        this.values = series.map(({name, className}) => {
            const entry = document.createElement("span");
            entry.className = className;
            const value = document.createElement("b");
            entry.append(`${name} `, value);
            this.legend.append(entry);
            return value;
        });
        const heading = document.createElement("h3");
        heading.textContent = title;
        const plot = document.createElement("div");
        plot.className = "plot";
        plot.append(this.svg, this.top);
        this.title = title;
        this.element = document.createElement("figure");
        this.element.className = "chart";
        this.element.append(heading, this.legend, plot);
    }

    // Over the last spanMs. points: [{atMs, values: [of each series, undefined where there is none]}], the oldest first.
    draw(points, nowMs, spanMs) {
        const values = points.flatMap(point => point.values).filter(Number.isFinite);
        const max = this.fixedMax ?? roundUp(Math.max(0, ...values));
        const x = atMs => LEFT + (1 - (nowMs - atMs) / spanMs) * (WIDTH - LEFT - RIGHT);
        const y = value => TOP + (1 - Math.min(1, value / max)) * (HEIGHT - TOP - BOTTOM);
        const floor = HEIGHT - BOTTOM;
        this.lines.forEach(({area, line}, i) => {
            const paths = runs(points, i).map(run => run.map(({atMs, values}) => `${x(atMs).toFixed(1)} ${y(values[i]).toFixed(1)}`));
            line.setAttribute("d", paths.map(path => `M${path.join("L")}`).join(""));
            area.setAttribute("d", runs(points, i).map((run, at) =>
                `M${x(run[0].atMs).toFixed(1)} ${floor}L${paths[at].join("L")}L${x(run.at(-1).atMs).toFixed(1)} ${floor}Z`).join(""));
            const last = points.at(-1)?.values[i];
            this.values[i].textContent = Number.isFinite(last) ? this.format(last) : "\u2013";
        });
        this.top.textContent = this.format(max);
        this.svg.setAttribute("aria-label", `${this.title}: ` +
            this.series.map(({name}, i) => `${name} ${this.values[i].textContent}`).join(", "));
    }
}

// Stretches of points that have a value.
function runs(points, i) {
    const all = [];
    let run = null;
    for (const point of points) {
        if (!Number.isFinite(point.values[i])) {
            run = null;
            continue;
        }
        if (!run)
            all.push(run = []);
        run.push(point);
    }
    return all;
}
