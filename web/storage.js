// storage.js: what the browser keeps. The conversation and the settings stay (localStorage), the key goes with the tab
// (sessionStorage). A browser that refuses to store is no error: then a reload forgets.

function read(storage, name) {
    try {
        return JSON.parse(window[storage].getItem(`runnel.${name}`));
    } catch {
        return null;
    }
}

function write(storage, name, value) {
    try {
        if (value === null)
            window[storage].removeItem(`runnel.${name}`);
        else
            window[storage].setItem(`runnel.${name}`, JSON.stringify(value));
        return true;
    } catch {
        return false;
    }
}

const isMessage = message => (message?.role === "user" || message?.role === "assistant") &&
    typeof message.content === "string";

export function loadConversation() {
    const messages = read("localStorage", "conversation");
    return Array.isArray(messages) ? messages.filter(isMessage) : [];
}

// False if it does not fit.
export const saveConversation = messages => write("localStorage", "conversation", messages.length ? messages : null);

export const loadSettings = () => ({...read("localStorage", "settings")});
export const saveSettings = settings => write("localStorage", "settings", settings);

export const loadKey = () => read("sessionStorage", "key") ?? "";
export const saveKey = key => write("sessionStorage", "key", key || null);

// theme.js reads it, before anything else runs: a plain word.
export function saveTheme(theme) {
    try {
        if (theme)
            localStorage.setItem("runnel.theme", theme);
        else
            localStorage.removeItem("runnel.theme");
    } catch { /* then a reload forgets it */ }
}
