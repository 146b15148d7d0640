// tools.js: what somebody enters as tools and as the shape of an answer, made into fields of a request. Throws an Error whose
// message says what is wrong with the text.

function parse(text) {
    try {
        return JSON.parse(text);
    } catch (error) {
        throw new Error(`This is no JSON: ${error.message}`);
    }
}

const isObject = value => typeof value === "object" && value !== null && !Array.isArray(value);

// A JSON list of tools as the API has them, or of their functions alone. Nothing entered: undefined.
export function readTools(text) {
    if (!text?.trim())
        return undefined;
    const tools = parse(text);
    if (!Array.isArray(tools))
        throw new Error("Expected a JSON list: [{\"name\": ..., \"description\": ..., \"parameters\": {...}}]");
    return tools.map((tool, i) => {
        const fn = isObject(tool) && "function" in tool ? tool.function : tool;
        if (!isObject(fn) || typeof fn.name !== "string" || !fn.name)
            throw new Error(`Tool ${i + 1} has no name.`);
        return {type: "function", function: fn};
    });
}

// A JSON schema, as the format that an answer must have. Nothing entered: undefined.
export function readShape(text) {
    if (!text?.trim())
        return undefined;
    const schema = parse(text);
    if (!isObject(schema))
        throw new Error("Expected a JSON schema: {\"type\": \"object\", ...}");
    return {type: "json_schema", json_schema: {name: "answer", schema}};
}
