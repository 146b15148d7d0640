// conversation.js: the conversation: questions go out, answers come in, and all of it is kept over a reload. One answer
// at a time.

import {AnswerView, makeQuestion} from "./answer.js";
import {make, makeButton} from "./make.js";
import {endThought, ServerError, streamChat} from "./server.js";
import {loadConversation, saveConversation} from "./storage.js";

const MAX_RETRIES = 5;
const SAVE_EVERY_MS = 2000;

export class Conversation {
    #messages = [];
    #list;
    #hooks;
    #abort = null;    // of the answer that is coming
    #lastSaved = 0;

    // hooks: getRequest() gives the fields of the settings, onBusy(isBusy), onEdit(question, before) when a question and what
    // followed it are taken out, onKeyNeeded(), onDegraded(reason), onForgetful() if the browser keeps no more, onFocusLost() if the
    // button that has the focus goes while an answer comes,
    // announce(text) for people who listen.
    constructor(list, hooks) {
        this.#list = list;
        this.#hooks = hooks;
    }

    get isBusy() {
        return this.#abort !== null;
    }

    get isEmpty() {
        return this.#messages.length === 0;
    }

    restore(messages = loadConversation()) {
        this.clear();
        this.#messages = messages;
        for (const message of messages) {
            if (message.role === "user") {
                this.#showQuestion(message);
                continue;
            }
            const view = this.#makeView(message);
            this.#list.append(view.element);
            view.showWhole();
        }
        this.#save(true);
        this.scrollToEnd();
    }

    // Returns what was there.
    clear() {
        this.stop();
        const before = this.#messages;
        this.#messages = [];
        this.#list.querySelectorAll(".message").forEach(element => element.remove());
        this.#save(true);
        return before;
    }

    stop() {
        this.#abort?.abort();
    }

    ask(question) {
        const message = {role: "user", content: question};
        this.#messages.push(message);
        this.#showQuestion(message);
        return this.#answer();
    }

    // The last question again, if its answer failed.
    askAgainAfterFailure() {
        const last = this.#messages.at(-1);
        if (last?.error && !this.isBusy)
            this.#retry(last, this.#list.lastElementChild);
    }

    scrollToEnd() {
        const box = this.#list;
        box.scrollTop = box.scrollHeight;
    }

    // ---- one answer

    #makeView(message) {
        return new AnswerView(message, {onGrow: () => this.#follow(), onRetry: view => this.#retry(message, view.element),
                                        onResults: () => this.#answer(), onFocusLost: () => this.#hooks.onFocusLost()});
    }

    #showQuestion(message) {
        this.#list.append(makeQuestion(message.content, element => this.#edit(message, element)));
    }

    // An answer again: it and what came after it go.
    #retry(message, element) {
        if (this.isBusy)
            return;
        this.#cut(message, element);
        this.#answer();
    }

    // A question otherwise: it and what came after it go, and it is handed back.
    #edit(message, element) {
        if (this.isBusy)
            return;
        const before = [...this.#messages];
        this.#cut(message, element);
        this.#save(true);
        this.#hooks.onEdit(message.content, before);
    }

    #cut(message, element) {
        this.#messages.length = this.#messages.indexOf(message);
        while (element.nextElementSibling)
            element.nextElementSibling.remove();
        element.remove();
    }

    async #answer() {
        const messages = this.#messages;
        const message = {role: "assistant", content: ""};
        const view = this.#makeView(message);
        const abort = new AbortController();
        const request = this.#makeRequest();
        messages.push(message);
        this.#abort = abort;
        this.#list.append(view.element);
        this.#hooks.onBusy(true);
        view.begin();
        this.#follow(true);
        const began = performance.now();
        try {
            Object.assign(message, await this.#askUntilTaken(request, view, message, abort.signal));
        } catch (error) {
            this.#takeFailure(message, error);
        }
        message.tookMs = performance.now() - began;
        view.end();
        this.#abort = null;
        this.#save(true, messages);
        this.#hooks.onBusy(false);
        this.#follow();
        this.#hooks.announce(message.error ?? (message.finishReason === "stopped" ? "Stopped." : "The answer is complete."));
    }

    #makeRequest() {
        const {system, fields} = this.#hooks.getRequest();
        const history = this.#messages.filter(message => message.role === "user" || message.content || message.calls);
        // A question whose answer failed is followed by another question: the earlier one is left out.
        const messages = history.filter((message, i) => !(message.role === "user" && history[i + 1]?.role === "user"))
            .flatMap(toRequest);
        return {messages: system ? [{role: "system", content: system}, ...messages] : messages, ...fields};
    }

    // A server that is busy says when to come back; that long a countdown runs.
    async #askUntilTaken(request, view, message, signal) {
        const on = {
            began: id => view.letEndThought(() => endThought(id)),
            thought: text => { this.#count(message); view.addThought(text); },
            answer: text => { this.#count(message); view.addAnswer(text); },
            call: piece => { this.#count(message); view.addCall(piece); },
            degraded: reason => { message.degraded = true; this.#hooks.onDegraded(reason); },
        };
        for (let attempt = 0; ; attempt++) {
            try {
                return await streamChat(request, signal, on);
            } catch (error) {
                const isOver = message.nPieces || !error.retryAfter || attempt >= MAX_RETRIES;
                if (isOver || !(error instanceof ServerError))
                    throw error;
                await countDown(error, view, signal);
            }
        }
    }

    #count(message) {
        message.nPieces = (message.nPieces ?? 0) + 1;
        this.#save(false);
    }

    #takeFailure(message, error) {
        if (error.name === "AbortError") {
            message.finishReason = "stopped";
            return;
        }
        message.error = error.message;
        if (error.status === 401)
            this.#hooks.onKeyNeeded();
        if (!(error instanceof ServerError))
            console.error(error);
    }

    // ---- keeping, and keeping in sight

    #save(now, messages = this.#messages) {
        if (messages !== this.#messages || (!now && performance.now() - this.#lastSaved < SAVE_EVERY_MS))
            return;
        this.#lastSaved = performance.now();
        if (!saveConversation(messages))
            this.#hooks.onForgetful();
    }

    // The end stays in sight for those who look at the end; who reads further up is left alone.
    #follow(always = false) {
        const box = this.#list;
        if (always || box.scrollHeight - box.scrollTop - box.clientHeight < 160)
            this.scrollToEnd();
    }
}

// A message as the API has it; after one with calls, the results that have come.
function toRequest({role, content, calls}) {
    if (!calls)
        return [{role, content}];
    const results = calls.filter(call => call.result !== undefined);
    return [{role, content, tool_calls: calls.map(({id, name, arguments: text}) => ({id, type: "function", function: {name, arguments: text}}))},
            ...results.map(({id, result}) => ({role: "tool", tool_call_id: id, content: result}))];
}

// Until error.retryAfter is over, somebody is impatient, or signal says stop.
function countDown(error, view, signal) {
    return new Promise((resolve, reject) => {
        let left = Math.ceil(error.retryAfter);
        const timer = setInterval(() => { left--; show(); }, 1000);
        const end = action => {
            clearInterval(timer);
            signal.removeEventListener("abort", onAbort);
            view.startedMs = performance.now();
            view.message.error = undefined;
            view.setStatus("Waiting\u2026");
            action();
        };
        const onAbort = () => end(() => reject(new DOMException("stopped", "AbortError")));
        const seconds = make("span", "");
        const button = makeButton("Ask now", "quiet", () => end(resolve));
        view.message.error = error.message;
        view.setStatus(make("span", "", `${error.message} `), seconds, button);
        signal.addEventListener("abort", onAbort);
        show();

        function show() {
            seconds.textContent = `Asking again in ${left} s.`;
            if (left <= 0)
                end(resolve);
        }
    });
}
