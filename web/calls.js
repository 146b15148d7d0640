// calls.js: the calls of tools in an answer: each folded, with its arguments and, when it has come, its result; and the form that
// asks for the results that are missing.

import {make} from "./make.js";

// JSON in lines, if it is JSON.
function inLines(text) {
    try {
        return JSON.stringify(JSON.parse(text), null, 2);
    } catch {
        return text;
    }
}

function makePart(title, text) {
    const code = make("pre", "", text);
    code.tabIndex = 0; // its end can be reached by keyboard if it is wider than the page
    code.setAttribute("aria-label", title);
    return make("div", "part", make("span", "part-title", title), code);
}

// calls: what the conversation keeps of them, each {id, name, arguments, result}. The caller owns the list; result is written here.
export class CallsView {
    #rows = [];    // of each call: {details, brief, body}
    #form = null;

    // onResults() is called when every call has its result.
    constructor(calls, onResults) {
        this.calls = calls;
        this.onResults = onResults;
        this.element = make("div", "calls");
    }

    // While they come: piece is {index, id, name, arguments}, the first one of a call with its id and name.
    add({index, id, name, arguments: text = ""}) {
        const call = this.calls[index] ??= {id, name, arguments: ""};
        call.arguments += text;
        this.#row(index).brief.textContent = call.arguments;
    }

    // All of them, as they are now, and whether somebody is to enter results.
    showWhole(areWaitedFor) {
        this.calls.forEach((call, i) => {
            const row = this.#row(i);
            row.brief.textContent = call.arguments;
            row.body.replaceChildren(makePart("Arguments", inLines(call.arguments)));
            if (call.result !== undefined)
                row.body.append(makePart("Result", inLines(call.result)));
        });
        this.#form?.remove();
        this.#form = null;
        if (areWaitedFor && this.calls.some(call => call.result === undefined))
            this.#addForm();
    }

    #row(index) {
        return this.#rows[index] ??= this.#addRow(this.calls[index]);
    }

    #addRow(call) {
        const brief = make("code", "brief");
        const body = make("div", "");
        const details = make("details", "call", make("summary", "", make("span", "title", `Calls ${call.name}`), brief), body);
        this.element.append(details);
        return {details, brief, body};
    }

    #addForm() {
        const fields = this.calls.map(call => {
            const field = make("textarea", "");
            field.rows = 2;
            field.required = true;
            field.spellcheck = false;
            return make("label", "", `What ${call.name} gives`, field);
        });
        const button = make("button", "primary", "Go on with this");
        button.type = "submit";
        this.#form = make("form", "results", ...fields, button);
        this.#form.addEventListener("submit", event => {
            event.preventDefault();
            fields.forEach((label, i) => { this.calls[i].result = label.querySelector("textarea").value; });
            this.showWhole(false);
            this.element.querySelector(".call:last-of-type summary").focus(); // the button that had the focus is gone
            this.onResults();
        });
        this.element.append(this.#form);
    }
}
