// main.js: puts the page together: the views, the composer, the keyboard, notices.

import {Conversation} from "./conversation.js";
import {Dashboard} from "./dashboard.js";
import {getHealth, getJson} from "./server.js";
import {Settings} from "./settings.js";
import {saveTheme} from "./storage.js";

const byId = id => document.getElementById(id);
const question = byId("question");
const notice = byId("notice");

// ---- notices: one line below the bar, with at most one thing to do

let noticeTimer = 0;

function showNotice(text, {action, onAction, forMs} = {}) {
    clearTimeout(noticeTimer);
    notice.replaceChildren(text);
    if (action) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "quiet";
        button.textContent = action;
        button.addEventListener("click", () => { hideNotice(); onAction(); });
        notice.append(button);
    }
    notice.hidden = false;
    if (forMs)
        noticeTimer = setTimeout(hideNotice, forMs);
}

function hideNotice() {
    notice.hidden = true;
}

// ---- the chat

// With a new key what was refused for want of one is asked again.
const settings = new Settings(byId("settings"), async () => {
    hideNotice();
    if (await showModel())
        conversation.askAgainAfterFailure();
});

function askForKey() {
    showNotice("This server asks for an API key.", {action: "Enter the key", onAction: () => settings.open("key")});
}

const conversation = new Conversation(byId("messages"), {
    getRequest: () => settings.getRequest(),
    onBusy: isBusy => {
        // The button that was pressed goes away: who pressed it by keyboard stays where they can go on.
        const hadFocus = document.activeElement === byId("stop") || document.activeElement === byId("send");
        byId("stop").hidden = !isBusy;
        byId("send").hidden = isBusy;
        byId("messages").classList.toggle("busy", isBusy);
        byId("welcome").hidden = !conversation.isEmpty;
        if (hadFocus)
            (isBusy ? byId("stop") : question).focus();
        if (!isBusy)
            updateSend();
    },
    onEdit: (text, before) => {
        const draft = question.value;
        question.value = text;
        updateSend();
        byId("welcome").hidden = !conversation.isEmpty;
        question.focus();
        showNotice("Ask it otherwise.", {action: "Leave it as it was", forMs: 30000, onAction: () => {
            question.value = draft;
            updateSend();
            restore(before);
        }});
    },
    onFocusLost: () => byId("stop").focus(),
    onKeyNeeded: askForKey,
    onDegraded: () => showNotice("The server is short of memory or time: answers are kept shorter for now.", {forMs: 15000}),
    onForgetful: () => showNotice("The browser keeps no more of this conversation: a reload would lose its end."),
    announce: text => { byId("announcer").textContent = text; },
});

function updateSend() {
    byId("send").disabled = !question.value.trim();
    question.style.height = "auto";
    question.style.height = `${question.scrollHeight}px`;
}

function send() {
    const text = question.value.trim();
    if (!text || conversation.isBusy)
        return;
    question.value = "";
    updateSend();
    hideNotice();
    conversation.ask(text);
}

function startNewChat() {
    const before = conversation.clear();
    byId("welcome").hidden = false;
    if (before.length)
        showNotice("A new chat.", {action: "Bring the last one back", forMs: 12000, onAction: () => restore(before)});
    location.hash = "#chat";
    question.focus();
}

function restore(messages) {
    conversation.restore(messages);
    byId("welcome").hidden = !conversation.isEmpty;
}

byId("composer").addEventListener("submit", event => { event.preventDefault(); send(); });
question.addEventListener("input", updateSend);
question.addEventListener("keydown", event => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
    }
});
byId("stop").addEventListener("click", () => conversation.stop());
byId("new-chat").addEventListener("click", startNewChat);
byId("open-settings").addEventListener("click", () => settings.open());
byId("forget").addEventListener("click", () => { settings.close(); startNewChat(); });
byId("examples").addEventListener("click", event => {
    if (event.target.matches("button") && !conversation.isBusy) {
        question.value = event.target.textContent;
        send();
        question.focus();
    }
});

document.addEventListener("keydown", event => {
    if (event.key === "Escape" && conversation.isBusy && !byId("settings").open) {
        conversation.stop();
        question.focus();
    } else if (event.altKey && !event.ctrlKey && !event.metaKey && event.code === "KeyN") {
        event.preventDefault();
        startNewChat();
    } else if (event.altKey && !event.ctrlKey && !event.metaKey && event.code === "KeyS") {
        event.preventDefault();
        settings.open();
    }
});

// ---- colours: the system's, light, dark

const themes = {"": "as the system has them", light: "light", dark: "dark"};

function showTheme(theme) {
    if (theme)
        document.documentElement.dataset.theme = theme;
    else
        delete document.documentElement.dataset.theme;
    byId("theme").setAttribute("aria-label", `Colours: ${themes[theme]}`);
    byId("theme").title = `Colours: ${themes[theme]}`;
}

byId("theme").addEventListener("click", () => {
    const names = Object.keys(themes);
    const now = document.documentElement.dataset.theme ?? "";
    const next = names[(names.indexOf(now) + 1) % names.length];
    saveTheme(next);
    showTheme(next);
});
showTheme(document.documentElement.dataset.theme ?? "");

// ---- views

const dashboard = new Dashboard(byId("view-dashboard"));

function showView() {
    const isDashboard = location.hash === "#dashboard";
    byId("view-chat").hidden = isDashboard;
    byId("view-dashboard").hidden = !isDashboard;
    for (const [name, isHere] of [["chat", !isDashboard], ["dashboard", isDashboard]]) {
        if (isHere)
            byId(`tab-${name}`).setAttribute("aria-current", "page");
        else
            byId(`tab-${name}`).removeAttribute("aria-current");
    }
    document.title = isDashboard ? "Dashboard \u2013 Runnel" : "Runnel";
    dashboard.setVisible(isDashboard);
}

window.addEventListener("hashchange", showView);

// ---- the model, and how the server is

// False if the server wants another key, or does not say.
async function showModel() {
    try {
        const {data: [model]} = await getJson("/v1/models");
        byId("model").textContent = model.id;
        byId("model").title = `${model.id} answers`;
        byId("welcome-model").textContent = `${model.id} answers.`;
        const {default_generation_settings: defaults} = await getJson("/props");
        settings.showDefaults({max_tokens: defaults.params?.n_predict, ...defaults.params});
        return true;
    } catch (error) {
        if (error.status === 401) // the model's name is told to everybody, the rest is not
            askForKey();
        return false;
    }
}

const troubles = {
    "loading model": "The model is being loaded. It answers in a moment.",
    draining: "The server is about to end.",
    wedged: "The server stands still: it has to be started anew.",
    degraded: "The server is short of memory or time: answers are kept shorter for now.",
    unreachable: "The server does not answer. Is it running?",
};

// Asked while there is trouble, and now and then.
async function watchHealth() {
    const {status} = await getHealth();
    const trouble = troubles[status];
    if (trouble)
        showNotice(trouble);
    else if (watchHealth.trouble)
        hideNotice();
    if (!trouble && !byId("model").textContent)
        await showModel();
    watchHealth.trouble = trouble;
    setTimeout(watchHealth, trouble ? 2000 : 30000);
}

restore();
showView();
updateSend();
watchHealth();
if (!matchMedia("(pointer: coarse)").matches) // there the keyboard would cover half of the page
    question.focus();
