// settings.js: the dialog of settings, and the fields of a request that they become.

import {loadKey, loadSettings, saveKey, saveSettings} from "./storage.js";
import {readShape, readTools} from "./tools.js";

const numbers = ["temperature", "top_p", "max_tokens", "thinking_budget_tokens"];
// Texts in JSON: the field of a request that each becomes, and how it is read.
const texts = {tools: ["tools", readTools], shape: ["response_format", readShape]};

export class Settings {
    #dialog;
    #keyBefore = "";
    #form;

    // onKey() is called when the dialog is closed with another key than it was opened with.
    constructor(dialog, onKey) {
        this.#dialog = dialog;
        this.#form = dialog.querySelector("form");
        this.#form.addEventListener("input", () => {
            this.#check();
            this.#save();
        });
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
        for (const name of [...numbers, ...Object.keys(texts), "system"])
            this.#form.elements[name].value = settings[name] ?? "";
        this.#check();
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
        for (const [name, [field, read]] of Object.entries(texts))
            if (settings[name])
                fields[field] = read(settings[name]);
        if (settings.thinking === false)
            fields.chat_template_kwargs = {enable_thinking: false};
        return {system: settings.system?.trim() ?? "", fields};
    }

    // What is wrong with a text is said beside it, and the dialog does not close.
    #check() {
        for (const [name, [, read]] of Object.entries(texts)) {
            const element = this.#form.elements[name];
            let trouble = "";
            try {
                read(element.value);
            } catch (error) {
                trouble = error.message;
            }
            element.setCustomValidity(trouble);
            document.getElementById(`${name}-trouble`).textContent = trouble;
        }
    }

    #save() {
        const settings = {};
        const {elements} = this.#form;
        for (const name of numbers)
            if (elements[name].value !== "" && elements[name].validity.valid)
                settings[name] = elements[name].valueAsNumber;
        for (const name of Object.keys(texts))
            if (elements[name].value.trim() && elements[name].validity.valid)
                settings[name] = elements[name].value;
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
