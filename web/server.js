// server.js: what the page asks the server, and what it makes of the answers. Knows nothing of the page.

import {loadKey} from "./storage.js";

// What went wrong, in words for people. status 0: no answer at all. retryAfter: seconds, null if it makes no sense.
export class ServerError extends Error {
    constructor(status, message, retryAfter = null) {
        super(message);
        this.status = status;
        this.retryAfter = retryAfter;
    }
}

function headers(more) {
    const key = loadKey();
    return key ? {...more, Authorization: `Bearer ${key}`} : {...more};
}

const plainWords = {
    401: "This server asks for an API key.",
    403: "The server does not take requests from this address.",
    413: "That is longer than the server takes.",
    429: "The server is busy: more people ask than it can serve.",
    500: "Something went wrong in the server.",
    503: "The server cannot answer just now.",
};

async function toError(response) {
    let detail = "";
    try {
        detail = (await response.json()).error.message;
    } catch { /* an answer without words of its own */ }
    const seconds = Number(response.headers.get("Retry-After"));
    const canRetry = response.status === 429 || response.status === 503;
    const words = plainWords[response.status] ?? "The server refused the request.";
    return new ServerError(response.status, detail && response.status !== 401 ? `${words} (${detail})` : words,
                           canRetry ? Math.max(1, seconds || 1) : null);
}

async function ask(path, options = {}) {
    let response;
    try {
        response = await fetch(path, {...options, headers: headers(options.headers), cache: "no-store"});
    } catch (error) {
        if (error.name === "AbortError")
            throw error;
        throw new ServerError(0, "The server does not answer. Is it running?", 3);
    }
    if (!response.ok)
        throw await toError(response);
    return response;
}

export const getText = async path => (await ask(path)).text();
export const getJson = async path => (await ask(path)).json();

// /health answers 503 while loading and while stopping: that is an answer too.
export async function getHealth() {
    try {
        return await (await fetch("/health", {cache: "no-store"})).json();
    } catch {
        return {status: "unreachable"};
    }
}

// The events of a stream (text/event-stream) as they come: each the text behind "data:".
async function* readEvents(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
        const {value, done} = await reader.read();
        if (done)
            return;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines)
            if (line.startsWith("data:"))
                yield line.slice(5).trim();
    }
}

// Streams an answer. on.thought(text) and on.answer(text) get the pieces, on.call({index, id, name, arguments}) those of calls of
// tools, id and name only with the first of each; on.began(id) is told the answer's id before its text, for endThought; on.degraded(reason)
// is called if the server says that it holds back. Returns {finishReason, timings, usage}. Throws ServerError, or AbortError if signal says so.
export async function streamChat(body, signal, on) {
    const response = await ask("/v1/chat/completions", {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({...body, stream: true, stream_options: {include_usage: true}, reasoning_control: true}),
        signal,
    });
    const result = {finishReason: null, timings: null, usage: null};
    let ended = false;
    let id = "";
    try {
        for await (const data of readEvents(response.body)) {
            if (data === "[DONE]") {
                ended = true;
                break;
            }
            const event = JSON.parse(data);
            if (event.error)
                throw new ServerError(event.error.code ?? 500, event.error.message, 1);
            if (event.id && !id)
                on.began(id = event.id);
            takeEvent(event, result, on);
        }
    } catch (error) {
        if (error.name === "AbortError" || error instanceof ServerError)
            throw error;
        throw new ServerError(0, "The connection was lost before the answer was complete.");
    }
    if (!ended)
        throw new ServerError(0, "The connection was lost before the answer was complete.");
    return result;
}

// Ends the thought of the answer with this id: {success, message}, as the server says it.
export async function endThought(id) {
    const response = await ask("/v1/chat/completions/control", {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({id, action: "reasoning_end"}),
    });
    return response.json();
}

function takeEvent(event, result, on) {
    const choice = event.choices?.[0];
    const delta = choice?.delta ?? {};
    const thought = delta.reasoning_content ?? delta.reasoning;
    if (thought)
        on.thought(thought);
    if (delta.content)
        on.answer(delta.content);
    for (const {index, id, function: {name, arguments: text}} of delta.tool_calls ?? [])
        on.call({index, id, name, arguments: text});
    if (choice?.finish_reason)
        result.finishReason = choice.finish_reason;
    if (event.degraded)
        on.degraded(event.degraded);
    result.timings = event.timings ?? result.timings;
    result.usage = event.usage ?? result.usage;
}
