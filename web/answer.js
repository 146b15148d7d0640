// answer.js: how messages look: a question, and an answer with its thoughts, its text, its calls, its time and its buttons.

import {CallsView} from "./calls.js";
import {make, makeButton} from "./make.js";
import {makeCopyButton, MarkdownStream, showMarkdown} from "./markdown.js";

export function formatSeconds(ms) {
    if (ms < 1000)
        return `${Math.round(ms)} ms`;
    const seconds = ms / 1000;
    if (seconds < 60)
        return `${seconds.toFixed(1)} s`;
    return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

// onEdit(element) is called when somebody wants to ask it otherwise.
export function makeQuestion(text, onEdit) {
    const edit = makeButton("Edit", "quiet edit", () => onEdit(element));
    edit.title = "Ask this otherwise; what follows it goes";
    const element = make("article", "message question", make("h3", "visually-hidden", "You"), edit, make("div", "text", text));
    return element;
}

const endings = {
    length: "Cut off: it reached the longest answer that was asked for.",
    stopped: "Stopped.",
};

// How a thought ended that the model did not end itself.
const thoughtEnds = {
    budget: "closed at its limit",
    soft_budget: "closed at its limit",
    reserve: "closed to leave room for the answer",
    loop: "closed, as it went in circles",
    end_token: "closed, as the model was about to stop",
    asked: "ended by you",
};

// An answer on its way, or one that is there. message is what the conversation keeps of it: content, reasoning, calls, and when it
// has ended finishReason, timings, usage, degraded, error, nPieces, tookMs.
export class AnswerView {
    constructor(message, {onGrow, onRetry, onResults, onFocusLost}) {
        this.message = message;
        this.onRetry = onRetry;
        this.onResults = onResults;
        this.onFocusLost = onFocusLost;
        this.calls = null; // the view of them, if there are any
        this.status = make("p", "status", "Waiting\u2026");
        this.thoughtTitle = make("span", "title", "Thoughts");
        this.thoughtCount = make("span", "count");
        this.thoughtBody = make("div", "text");
        this.thoughts = make("details", "thoughts", make("summary", "", this.thoughtTitle, this.thoughtCount), this.thoughtBody);
        this.thoughts.hidden = true;
        this.endThought = null; // asks the server to end the thought, once it is known how
        this.endButton = makeButton("", "quiet", () => this.#pressEnd());
        this.endTrouble = make("span", "trouble");
        this.endTrouble.setAttribute("role", "status");
        this.thoughtControl = make("div", "thought-control", this.endButton, this.endTrouble);
        this.thoughtControl.hidden = true;
        this.body = make("div", "text");
        this.foot = make("footer", "foot");
        this.foot.hidden = true;
        this.element = make("article", "message answer", make("h3", "visually-hidden", "Answer"), this.status,
                            this.thoughts, this.thoughtControl, this.body, this.foot);
        this.onGrow = onGrow;
        this.wasToggled = false;
        this.thoughts.querySelector("summary").addEventListener("click", () => { this.wasToggled = true; });
    }

    // ---- while it comes

    begin() {
        this.element.classList.add("live");
        this.element.setAttribute("aria-busy", "true");
        this.thoughtStream = null;
        this.answerStream = null;
        this.thinkingSince = 0;
        this.nThoughts = 0;
        this.startedMs = performance.now();
        this.timer = setInterval(() => this.#showProgress(), 250);
    }

    addThought(text) {
        if (!this.thoughtStream) {
            this.thoughtStream = new MarkdownStream(this.thoughtBody, this.onGrow);
            this.thinkingSince = performance.now();
            this.thoughts.hidden = false;
            this.thoughts.open = true;
            this.thoughts.classList.add("live");
            this.status.hidden = true;
            this.#showControl();
        }
        this.nThoughts++;
        this.message.reasoning = (this.message.reasoning ?? "") + text;
        this.thoughtStream.append(text);
    }

    // end() asks the server to end the thought: {success, message}.
    letEndThought(end) {
        this.endThought = end;
        this.#showControl();
    }

    #showControl() {
        this.#setEnding(false);
        this.thoughtControl.hidden = !this.thoughtStream || !this.endThought;
    }

    // It is not disabled while it waits: it would lose the focus.
    #setEnding(isEnding, trouble = "") {
        this.endButton.textContent = isEnding ? "Ending the thought\u2026" : "End the thought";
        this.endButton.setAttribute("aria-disabled", String(isEnding));
        this.endTrouble.textContent = trouble;
    }

    async #pressEnd() {
        if (this.endButton.getAttribute("aria-disabled") === "true")
            return;
        this.#setEnding(true);
        try {
            const {success, message} = await this.endThought();
            if (!success)
                this.#setEnding(false, `It cannot be ended: ${message}.`);
        } catch (error) {
            this.#setEnding(false, error.message);
        }
    }

    addAnswer(text) {
        if (!this.answerStream) {
            if (/^\s*$/.test(text))
                return; // the blank lines between thoughts and answer
            text = text.trimStart();
            this.answerStream = new MarkdownStream(this.body, this.onGrow);
            this.status.hidden = true;
            this.#endThoughts();
        }
        this.message.content += text;
        this.answerStream.append(text);
    }

    addCall(piece) {
        this.status.hidden = true;
        this.#endThoughts();
        this.message.calls ??= [];
        this.#showCalls().add(piece);
        this.onGrow();
    }

    #showCalls() {
        if (!this.calls) {
            this.calls = new CallsView(this.message.calls, () => this.onResults());
            this.body.after(this.calls.element);
        }
        return this.calls;
    }

    // What is being waited for, before anything comes.
    setStatus(...content) {
        this.status.replaceChildren(...content);
        this.status.hidden = false;
    }

    #showProgress() {
        const waited = performance.now() - this.startedMs;
        if (!this.thoughtStream && !this.answerStream && !this.calls && waited > 1500 && !this.message.error)
            this.setStatus(`Waiting for the first word\u2026 ${formatSeconds(waited)}`);
        if (this.thoughts.classList.contains("live")) {
            this.thoughtTitle.textContent = "Thinking\u2026";
            this.thoughtCount.textContent =
                `${formatSeconds(performance.now() - this.thinkingSince)}, ${count(this.nThoughts, "token")}`;
        }
    }

    #endThoughts() {
        if (!this.thoughtStream)
            return;
        this.thoughtStream.end();
        this.thoughtStream = null;
        const hadFocus = this.thoughtControl.contains(document.activeElement);
        this.thoughtControl.hidden = true;
        if (hadFocus)
            this.onFocusLost();
        this.thoughts.classList.remove("live");
        this.message.thoughtMs = performance.now() - this.thinkingSince;
        this.#titleThoughts();
        if (!this.wasToggled)
            this.thoughts.open = false;
    }

    #titleThoughts() {
        const {timings, thoughtMs} = this.message;
        const ms = timings?.thinking_ms || thoughtMs;
        const n = timings?.thinking_n || this.nThoughts;
        this.thoughtTitle.textContent = ms ? `Thought for ${formatSeconds(ms)}` : "Thoughts";
        const end = thoughtEnds[timings?.thinking_end];
        this.thoughtCount.textContent = [n ? count(n, "token") : "", end].filter(Boolean).join(", ");
    }

    // ---- when it is there

    end() {
        clearInterval(this.timer);
        this.#endThoughts();
        this.answerStream?.end();
        this.element.classList.remove("live");
        this.element.removeAttribute("aria-busy");
        this.status.hidden = true;
        this.#showFoot();
    }

    // One that was kept.
    showWhole() {
        this.status.hidden = true;
        if (this.message.reasoning) {
            this.thoughts.hidden = false;
            showMarkdown(this.thoughtBody, this.message.reasoning);
        }
        if (this.message.content)
            showMarkdown(this.body, this.message.content);
        this.#showFoot();
    }

    #showFoot() {
        const {message} = this;
        if (message.reasoning)
            this.#titleThoughts();
        if (message.calls)
            this.#showCalls().showWhole(message.finishReason === "tool_calls");
        const notes = [];
        if (message.error)
            notes.push(make("p", "note error", message.error));
        else if (endings[message.finishReason])
            notes.push(make("p", "note", endings[message.finishReason]));
        else if (!message.content && !message.calls)
            notes.push(make("p", "note", message.reasoning ? "It thought, and gave no answer. Asking again may help." :
                "The model had nothing to say."));
        if (message.degraded)
            notes.push(make("p", "note degraded",
                            "The server was short of memory or time: this answer was kept shorter and steadier than asked for."));
        const buttons = make("div", "buttons");
        if (message.content)
            buttons.append(makeCopyButton(() => message.content));
        buttons.append(makeButton("Ask again", "quiet retry", () => this.onRetry(this)));
        this.foot.replaceChildren(...notes, make("div", "foot-row", ...makeTimes(message), buttons));
        this.foot.hidden = false;
    }
}

// Where the time of an answer went: a sentence, and a bar that opens to the figures.
function makeTimes(message) {
    const {timings} = message;
    if (!timings) {
        if (!message.nPieces)
            return [];
        const perSecond = message.nPieces / (message.tookMs / 1000);
        return [make("p", "speed", `about ${count(message.nPieces, "token")}, ${perSecond.toFixed(1)} a second`)];
    }
    const parts = [
        ["queued", timings.queue_ms ?? 0, "waiting for a place"],
        ["prefill", timings.prompt_ms, `reading ${count(timings.prompt_n, "token")}` +
            (timings.cache_n ? `, ${timings.cache_n.toLocaleString("en")} more from the cache` : "")],
        ["decode", timings.predicted_ms - (timings.stall_ms ?? 0), `writing ${count(timings.predicted_n, "token")}`],
        ["stalled", timings.stall_ms ?? 0, "letting others go first"],
    ];
    const total = parts.reduce((sum, [, ms]) => sum + ms, 0);
    const bar = make("span", "bar-of-time");
    const table = make("dl", "");
    for (const [name, ms, words] of parts) {
        const piece = make("span", name);
        piece.style.flexGrow = ms / total;
        bar.append(piece);
        table.append(make("dt", name, name), make("dd", "", `${formatSeconds(ms)}`), make("dd", "small", words));
    }
    const sentence = `${timings.predicted_per_second.toFixed(1)} tokens a second, ${formatSeconds(total)} in all`;
    return [make("details", "times", make("summary", "", make("span", "speed", sentence), bar), table)];
}
