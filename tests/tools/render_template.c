/* render_template.c: renders chat templates for tests: a JSON object a line in, {"template", "inputs", "now"} with now in
 * seconds UTC; a line out, {"text", "own": [[begin, end], ...]} or {"error"}. */
#include "model/template/template.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *render(const char *line, size_t len)
{
    struct template_arena arena;
    struct template *template = NULL;
    struct template_output output = {0};
    struct value root;
    runnel_error error;
    json_t *answer = NULL;
    time_t now = 0;
    struct tm broken_down;
    template_arena_init(&arena, template_default_limits.memory_bytes);
    int code = template_read_json(&arena, line, len, &root, &error);
    if (!code) {
        struct string text = dict_get_text(root.dict, "template")->string;
        code = template_compile(text.bytes, text.len, &template, &error);
    }
    if (!code) {
        now = (time_t)dict_get_text(root.dict, "now")->integer;
        gmtime_r(&now, &broken_down);
        code = template_render(template, &arena, &template_default_limits,
                               dict_get_text(root.dict, "inputs")->dict, &broken_down, &output, &error);
    }
    if (code) {
        answer = json_pack("{s:s}", "error", error.message);
    } else {
        answer = json_pack("{s:s#, s:[]}", "text", output.text, output.len, "own");
        for (size_t i = 0; i < output.n_own; i++)
            json_array_append_new(json_object_get(answer, "own"),
                                  json_pack("[ii]", (int)output.own[i].begin, (int)output.own[i].end));
    }
    template_output_free(&output);
    template_free(template);
    template_arena_free(&arena);
    return answer;
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    while ((len = getline(&line, &cap, stdin)) > 0) {
        json_t *answer = render(line, (size_t)len);
        char *text = json_dumps(answer, 0);
        puts(text ? text : "{\"error\":\"the text is not valid UTF-8\"}");
        fflush(stdout);
        free(text);
        json_decref(answer);
    }
    free(line);
    return 0;
}
