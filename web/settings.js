// settings.js: the dialog of settings, and the fields of a request that they become.

import {loadKey, loadSettings, saveKey, saveSettings} from "./storage.js";

const numbers = ["temperature", "top_p", "max_tokens", "thinking_budget_tokens"];

export class Settings {
    #dialog;
    #keyBefore = "";
    #form;

    // onKey() is called when the dialog is closed with another key than it was opened with.
    constructor(dialog, onKey) {
        this.#dialog = dialog;
        this.#form = dialog.querySelector("form");
        this.#form.addEventListener("input", () => this.#save());
        this.#form.addEventListener("submit", () => this.#save());
        dialog.addEventListener("click", event => {
            if (event.target === dialog)
                dialog.close(); // beside it
        });
        dialog.addEventListener("close", () => {
            if (loadKey() !== this.#keyBefore)
                onKey();
        });
        dialog.querySelector(".close").addEventListener("click", () => dialog.close());
        document.getElementById("reset-settings").addEventListener("click", () => this.#reset());
    }

    open(field) {
        const settings = loadSettings();
        for (const name of [...numbers, "system"])
            this.#form.elements[name].value = settings[name] ?? "";
        this.#form.elements.thinking.checked = settings.thinking !== false;
        this.#form.elements.key.value = loadKey();
        if (!this.#dialog.open) {
            this.#keyBefore = loadKey();
            this.#dialog.showModal();
        }
        this.#form.elements[field ?? "system"].focus();
    }

    close() {
        this.#dialog.close();
    }

    // What the model does by itself, shown where nothing was entered.
    showDefaults(defaults) {
        for (const name of numbers)
            if (Number.isFinite(defaults[name]) && defaults[name] >= 0)
                this.#form.elements[name].placeholder = String(Math.round(defaults[name] * 1000) / 1000);
    }

    // {system, fields}: the system prompt, and what else a request says.
    getRequest() {
        const settings = loadSettings();
        const fields = {};
        for (const name of numbers)
            if (typeof settings[name] === "number")
                fields[name] = settings[name];
        if (settings.thinking === false)
            fields.chat_template_kwargs = {enable_thinking: false};
        return {system: settings.system?.trim() ?? "", fields};
    }

    #save() {
        const settings = {};
        const {elements} = this.#form;
        for (const name of numbers)
            if (elements[name].value !== "" && elements[name].validity.valid)
                settings[name] = elements[name].valueAsNumber;
        if (elements.system.value.trim())
            settings.system = elements.system.value;
        if (!elements.thinking.checked)
            settings.thinking = false;
        saveSettings(settings);
        saveKey(elements.key.value.trim());
    }

    #reset() {
        saveSettings({});
        this.open();
    }
}
