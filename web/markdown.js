// markdown.js: a model's Markdown to elements. What a model writes is not to be trusted: everything that becomes HTML
// passes DOMPurify, which lets through neither scripts nor styles, forms, frames and pictures from elsewhere; the page's
// Content-Security-Policy would stop them once more.
//
// marked, DOMPurify, katex and hljs are plain scripts that index.html loads before.
/* global marked, DOMPurify, katex, hljs */

const escapes = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;", "'": "&#39;"};
const escapeHtml = text => text.replace(/[&<>"']/g, letter => escapes[letter]);

// ---- formulas: MathML, which browsers draw themselves, without fonts and without styles in the HTML

function renderFormula(source, isBlock) {
    let html;
    try {
        html = katex.renderToString(source, {
            displayMode: isBlock, output: "mathml", throwOnError: true, strict: "ignore", trust: false, maxExpand: 200,
        });
    } catch {
        return `<code>${escapeHtml(source)}</code>`;
    }
    // The source that KaTeX puts beside the formula would be shown as text once DOMPurify has taken its element away.
    return html.replace(/<annotation[^>]*>[^<]*<\/annotation>/g, "");
}

const formulaRules = [
    // name, where it may stand, what begins it, the whole
    ["blockDollars", "block", "$$", /^ {0,3}\$\$([\s\S]+?)\$\$[ \t]*(?:\n+|$)/, true],
    ["blockBrackets", "block", "\\[", /^ {0,3}\\\[([\s\S]+?)\\\][ \t]*(?:\n+|$)/, true],
    ["inlineDollars", "inline", "$$", /^\$\$([^$]+?)\$\$/, true],
    ["inlineBrackets", "inline", "\\[", /^\\\[([\s\S]+?)\\\]/, true],
    ["inlineParentheses", "inline", "\\(", /^\\\(([\s\S]+?)\\\)/, false],
    // "$5 and $10" is money: no blank inside the marks, no digit behind them
    ["inlineDollar", "inline", "$", /^\$(?![\s$])((?:\\[\s\S]|[^\\$\n])*?[^\s\\$]|[^\s\\$])\$(?![\d$])/, false],
];

const formulas = formulaRules.map(([name, level, begin, whole, isBlock]) => ({
    name,
    level,
    start: source => {
        const at = source.indexOf(begin);
        return at < 0 ? undefined : at;
    },
    tokenizer: source => {
        const match = whole.exec(source);
        return match ? {type: name, raw: match[0], formula: match[1].trim()} : undefined;
    },
    renderer: token => renderFormula(token.formula, isBlock),
}));

// ---- code

function highlight(code, language) {
    const name = /^[\w+#.-]+/.exec(language ?? "")?.[0] ?? "";
    if (!name || !hljs.getLanguage(name) || code.length > 100000)
        return escapeHtml(code);
    return hljs.highlight(name, code, true).value;
}

const plainTags = /(<\/?(?:br|hr|sub|sup|kbd|b|i|u|s|em|strong|mark|del|ins|p)\s*\/?>)/i;

const renderer = {
    code(code, language) {
        const name = /^[\w+#.-]+/.exec(language ?? "")?.[0] ?? "";
        return `<div class="code"><div class="code-head"><span>${escapeHtml(name || "text")}</span></div>` +
            `<pre><code>${highlight(code, language)}\n</code></pre></div>\n`;
    },
    // HTML in an answer is mostly meant to be read: all but a few plain tags stays text.
    html(source) {
        return source.split(plainTags).map((part, i) => i % 2 ? part : escapeHtml(part).replace(/&amp;(#?\w+;)/g, "&$1")).join("");
    },
    // A box of a list of tasks, to be read only.
    checkbox(isDone) {
        return isDone ? "\u2611 " : "\u2610 ";
    },
    // A picture would be a request to somebody else's server, with what was talked about in its address.
    image(href, title, text) {
        return escapeHtml(text || href || "");
    },
    table(head, body) {
        return `<div class="table"><table><thead>${head}</thead><tbody>${body}</tbody></table></div>`;
    },
};

marked.use({extensions: formulas, renderer, gfm: true, headerIds: false, mangle: false});

// ---- what is safe

// Debian 12's DOMPurify (2.4.1+dfsg+~2.4.0-2+deb12u1) asks in one place for the depth of a variable that exists in another
// function only, and fails. Given one without a depth it goes on to the check that counts.
globalThis.shadowNode ??= {};

const allowed = {
    USE_PROFILES: {html: true, mathMl: true},
    FORBID_TAGS: ["style", "form", "input", "button", "textarea", "select", "option", "img", "picture", "video", "audio",
        "source", "track", "dialog", "details", "link", "meta", "base", "map", "area", "svg"],
    FORBID_ATTR: ["style", "id", "name", "href-lang", "srcset", "ping", "target", "tabindex", "contenteditable",
        "autofocus", "slot", "is", "background"],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    SANITIZE_NAMED_PROPS: true,
    RETURN_DOM_FRAGMENT: true,
};
const ownClasses = /^(?:code|code-head|table|katex|hljs-[\w-]+)$/;

function finish(fragment) {
    for (const element of fragment.querySelectorAll("[class]")) {
        const kept = [...element.classList].filter(name => ownClasses.test(name));
        if (kept.length)
            element.setAttribute("class", kept.join(" "));
        else
            element.removeAttribute("class");
    }
    for (const link of fragment.querySelectorAll("a[href]")) {
        if (/^(?:https?:|mailto:)/i.test(link.getAttribute("href"))) {
            link.target = "_blank";
            link.rel = "noopener noreferrer nofollow";
        } else {
            link.removeAttribute("href");
        }
    }
    for (const head of fragment.querySelectorAll(".code > .code-head"))
        head.append(makeCopyButton(() => head.parentElement.querySelector("pre").textContent.replace(/\n$/, "")));
    return fragment;
}

// The HTML of tokens, made safe, as a document fragment.
function toFragment(tokens, links) {
    tokens.links = links;
    return finish(DOMPurify.sanitize(marked.parser(tokens), allowed));
}

// A button that copies what getText() gives.
export function makeCopyButton(getText) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
        try {
            await navigator.clipboard.writeText(getText());
            button.textContent = "Copied";
        } catch {
            button.textContent = "Not allowed";
        }
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    return button;
}

// ---- text that grows

// Shows Markdown that comes piece by piece in an element. Blocks that can change no more are rendered once and left alone;
// only what is behind them is rendered again, at most once a frame, and less often where that takes long.
export class MarkdownStream {
    #element;
    #tail;            // holds what may still change, the last child
    #source = "";     // of the tail
    #frame = 0;
    #notBefore = 0;
    #links = {};
    #onRender;

    constructor(element, onRender = () => {}) {
        this.#element = element;
        this.#tail = document.createElement("div");
        this.#tail.className = "tail";
        this.#onRender = onRender;
        element.replaceChildren(this.#tail);
    }

    append(text) {
        this.#source += text;
        if (!this.#frame)
            this.#frame = requestAnimationFrame(now => this.#onFrame(now));
    }

    // All of it has come.
    end() {
        cancelAnimationFrame(this.#frame);
        this.#frame = 0;
        this.#render(true);
        this.#tail.remove();
    }

    #onFrame(now) {
        this.#frame = 0;
        if (now < this.#notBefore) {
            this.#frame = requestAnimationFrame(later => this.#onFrame(later));
            return;
        }
        const began = performance.now();
        this.#render(false);
        const took = performance.now() - began;
        this.#notBefore = now + (took > 4 ? 5 * took : 0); // a fifth of the time at most
    }

    #render(isEnd) {
        this.#source = this.#source.replace(/\r/g, "").replace(/^( *)(\t+)/gm, expandTabs);
        const tokens = marked.lexer(this.#source);
        Object.assign(this.#links, tokens.links);
        // Definitions of links leave no token: then where a block begins is not known, and all stays in the tail.
        const isWhole = lengthOf(tokens) === this.#source.length;
        const nSettled = isEnd ? tokens.length : isWhole ? countSettled(tokens) : 0;
        if (nSettled) {
            const settled = tokens.splice(0, nSettled);
            this.#source = isEnd ? "" : this.#source.slice(lengthOf(settled));
            this.#tail.before(toFragment(settled, this.#links));
        }
        this.#tail.replaceChildren(tokens.length ? toFragment(tokens, this.#links) : "");
        this.#onRender();
    }
}

// As marked does it, so that its blocks are as long as their source.
const expandTabs = (all, blanks, tabs) => blanks + "    ".repeat(tabs.length);
const lengthOf = tokens => tokens.reduce((sum, token) => sum + token.raw.length, 0);

// The last block, and blank lines behind it, may still be part of what comes.
function countSettled(tokens) {
    let last = tokens.length - 1;
    while (last > 0 && tokens[last].type === "space")
        last--;
    return Math.max(0, last);
}

// Markdown that is complete.
export function showMarkdown(element, text) {
    const stream = new MarkdownStream(element);
    stream.append(text);
    stream.end();
}
