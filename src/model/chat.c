/* chat.c: recognises chat templates by their skeleton and renders conversations as they would. See chat.h. */
#include "model/chat.h"

#include "model/jinja.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_SYSTEM "\1" /* in a skeleton: any text within one string */

static const char r1_begin[] = "<｜begin▁of▁sentence｜>", r1_user[] = "<｜User｜>";
static const char r1_assistant[] = "<｜Assistant｜>", r1_end[] = "<｜end▁of▁sentence｜>";
static const char think_open[] = "<think>\n", think_close[] = "</think>";
const char chat_thought_end[] = "\n</think>\n\n";

#define R1_SKELETON(opening)                                                                                 \
    "set ns=namespace(is_first=false,is_tool=false,is_output_first=true,system_prompt='')\n"                 \
    "for message in messages\n"                                                                              \
    "if message['role']=='system'\n"                                                                         \
    "set ns['system_prompt']=message['content']\n"                                                           \
    "endif\n"                                                                                                \
    "endfor\n"                                                                                               \
    "out bos_token\n"                                                                                        \
    "out ns['system_prompt']\n"                                                                              \
    "for message in messages\n"                                                                              \
    "if message['role']=='user'\n"                                                                           \
    "out '<｜User｜>'+message['content']\n"                                                                \
    "endif\n"                                                                                                \
    "if message['role']=='assistant'\n"                                                                      \
    "set content=message['content']\n"                                                                       \
    "if '</think>'in content\n"                                                                              \
    "set content=content['split']('</think>')[-1]\n"                                                         \
    "endif\n"                                                                                                \
    "out '<｜Assistant｜>'+content+'<｜end▁of▁sentence｜>'\n"                                        \
    "endif\n"                                                                                                \
    "endfor\n"                                                                                               \
    "if add_generation_prompt\n"                                                                             \
    "out '" opening "'\n"                                                                                    \
    "endif\n"

#define CHATML_MESSAGE "out '<|im_start|>'+message['role']+'\\n'+message['content']+'<|im_end|>\\n'\n"
#define CHATML_ENDING                                                                                        \
    "endfor\n"                                                                                               \
    "if add_generation_prompt\n"                                                                             \
    "out '<|im_start|>assistant\\n'\n"                                                                       \
    "endif\n"

/* Every skeleton that is known, and what it renders. The namespace of R1's templates is dropped from
 * skeletons. */
static const struct {
    const char *skeleton;
    enum chat_family family;
    bool opens_think;
} known[] = {
    {R1_SKELETON("<｜Assistant｜>"), CHAT_R1, false},
    {R1_SKELETON("<｜Assistant｜><think>\\n"), CHAT_R1, true},
    /* Qwen2.5 */
    {"if messages[0]['role']=='system'\n"
     "out '<|im_start|>system\\n'+messages[0]['content']+'<|im_end|>\\n'\n"
     "else\n"
     "out '<|im_start|>system\\n" DEFAULT_SYSTEM "<|im_end|>\\n'\n"
     "endif\n"
     "for message in messages\n"
     "if (message['role']=='user')or(message['role']=='system'and not loop['first'])or"
     "(message['role']=='assistant'and not message['tool_calls'])\n" CHATML_MESSAGE "endif\n" CHATML_ENDING,
     CHAT_CHATML, false},
    /* Qwen2, SmolLM2 */
    {"for message in messages\n"
     "if loop['first']and messages[0]['role']!='system'\n"
     "out '<|im_start|>system\\n" DEFAULT_SYSTEM "<|im_end|>\\n'\n"
     "endif\n" CHATML_MESSAGE CHATML_ENDING,
     CHAT_CHATML, false},
    /* without a system text of its own */
    {"for message in messages\n" CHATML_MESSAGE CHATML_ENDING, CHAT_CHATML, false},
};

static const struct chat_template by_name[] = {
    {.family = CHAT_R1, .name = "r1"},
    {.family = CHAT_CHATML, .name = "chatml"},
};

const char *chat_known_names(void)
{
    return "r1, chatml";
}

int chat_by_name(const char *name, struct chat_template *template, runnel_error *error)
{
    for (size_t i = 0; i < sizeof by_name / sizeof *by_name; i++)
        if (strcmp(name, by_name[i].name) == 0) {
            *template = by_name[i];
            return RUNNEL_OK;
        }
    return error_set(error, RUNNEL_EINVAL, "chat template \"%.64s\": known ones are %s", name,
                     chat_known_names());
}

/* Compares a skeleton with a known one. What stands for DEFAULT_SYSTEM is unescaped into system. */
static bool matches(const char *skeleton, const char *pattern, char *system, size_t system_cap)
{
    const char *gap = strchr(pattern, DEFAULT_SYSTEM[0]);
    system[0] = '\0';
    if (!gap)
        return strcmp(skeleton, pattern) == 0;
    size_t len = strlen(skeleton), before = (size_t)(gap - pattern), after = strlen(gap + 1), n = 0;
    if (len <= before + after || memcmp(skeleton, pattern, before) != 0 ||
        strcmp(skeleton + len - after, gap + 1) != 0)
        return false;
    for (const char *at = skeleton + before; at < skeleton + len - after; at++) {
        char c = *at;
        if (c == '\'' || c == '\n' || n + 1 == system_cap)
            return false; /* past the end of the string; too long */
        if (c == '\\' && ++at == skeleton + len - after)
            return false;
        system[n++] = c != '\\' ? c : *at == 'n' ? '\n' : *at;
    }
    system[n] = '\0';
    return true;
}

int chat_recognise(const char *jinja, size_t len, struct chat_template *template, runnel_error *error)
{
    struct text skeleton = {0};
    int code = jinja_skeleton(jinja, len, &skeleton, error);
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof *known && !code && !found; i++) {
        struct chat_template candidate = {.family = known[i].family, .opens_think = known[i].opens_think};
        found = matches(skeleton.bytes ? skeleton.bytes : "", known[i].skeleton, candidate.default_system,
                        sizeof candidate.default_system);
        candidate.name = known[i].family == CHAT_R1 ? "r1" : "chatml";
        if (found)
            *template = candidate;
    }
    text_free(&skeleton);
    if (found || code == RUNNEL_ENOMEM)
        return code;
    return error_set(error, RUNNEL_EUNSUPPORTED,
                     "the model's chat template is not one that is known here (%s): choose one with "
                     "--chat-template NAME (in the library: the option chat_template)",
                     chat_known_names());
}

/* A prompt being written. */
struct writer {
    struct text text;
    struct text_span *spans;
    size_t n_spans, cap_spans;
    bool failed;
};

size_t chat_content_len(const runnel_message *message)
{
    return message->content_len ? message->content_len : strlen(message->content);
}

static void write_content(struct writer *writer, const runnel_message *message)
{
    text_add(&writer->text, message->content, chat_content_len(message));
}

/* An answer without its thoughts. */
static void write_answer(struct writer *writer, const runnel_message *message)
{
    const char *content = message->content, *end = content + chat_content_len(message);
    for (const char *close;
         (close = memmem(content, (size_t)(end - content), think_close, strlen(think_close)));)
        content = close + strlen(think_close);
    text_add(&writer->text, content, (size_t)(end - content));
}

/* Text of the template's own. */
static void write_control(struct writer *writer, const char *text)
{
    size_t begin = writer->text.len;
    text_add_string(&writer->text, text);
    if (writer->n_spans && writer->spans[writer->n_spans - 1].end == begin) {
        writer->spans[writer->n_spans - 1].end = writer->text.len;
        return;
    }
    if (writer->n_spans == writer->cap_spans) {
        size_t cap = writer->cap_spans ? 2 * writer->cap_spans : 16;
        struct text_span *spans = realloc(writer->spans, cap * sizeof *spans);
        if (!spans) {
            writer->failed = true;
            return;
        }
        writer->spans = spans;
        writer->cap_spans = cap;
    }
    writer->spans[writer->n_spans++] = (struct text_span){begin, writer->text.len};
}

static bool has_role(const runnel_message *message, const char *role)
{
    return strcmp(message->role, role) == 0;
}

static void render_r1(struct writer *writer, const runnel_message *messages, size_t n_messages)
{
    const runnel_message *system = NULL;
    for (size_t i = 0; i < n_messages; i++) /* the last one holds, wherever it stands */
        if (has_role(&messages[i], "system"))
            system = &messages[i];
    write_control(writer, r1_begin);
    if (system)
        write_content(writer, system);
    for (size_t i = 0; i < n_messages; i++) {
        if (has_role(&messages[i], "user")) {
            write_control(writer, r1_user);
            write_content(writer, &messages[i]);
        } else if (has_role(&messages[i], "assistant")) {
            write_control(writer, r1_assistant);
            write_answer(writer, &messages[i]);
            write_control(writer, r1_end);
        }
    }
    write_control(writer, r1_assistant);
}

static void write_chatml_message(struct writer *writer, const runnel_message *message)
{
    write_control(writer, "<|im_start|>");
    write_control(writer, message->role);
    write_control(writer, "\n");
    write_content(writer, message);
    write_control(writer, "<|im_end|>\n");
}

static void render_chatml(struct writer *writer, const char *default_system, const runnel_message *messages,
                          size_t n_messages)
{
    const runnel_message by_default = {.role = "system", .content = default_system};
    if (default_system[0] && !(n_messages && has_role(&messages[0], "system")))
        write_chatml_message(writer, &by_default);
    for (size_t i = 0; i < n_messages; i++)
        write_chatml_message(writer, &messages[i]);
    write_control(writer, "<|im_start|>assistant\n");
}

static int check_messages(const runnel_message *messages, size_t n_messages, enum chat_opening opening,
                          runnel_error *error)
{
    if (!n_messages)
        return error_set(error, RUNNEL_EINVAL, "messages: at least one expected, none found");
    for (size_t i = 0; i < n_messages; i++) {
        if (!messages[i].role || !messages[i].content)
            return error_set(error, RUNNEL_EINVAL, "messages[%zu]: %s is missing", i,
                             messages[i].role ? "content" : "role");
        if (!has_role(&messages[i], "system") && !has_role(&messages[i], "user") &&
            !has_role(&messages[i], "assistant"))
            return error_set(error, RUNNEL_EINVAL,
                             "messages[%zu].role: expected system, user or assistant, found \"%.80s\"", i,
                             messages[i].role);
    }
    if (opening == CHAT_CONTINUING && !has_role(&messages[n_messages - 1], "assistant"))
        return error_set(error, RUNNEL_EINVAL,
                         "messages[%zu].role: the last message is to be continued, assistant expected",
                         n_messages - 1);
    return RUNNEL_OK;
}

static bool begins_with_thought(const runnel_message *message)
{
    size_t len = strlen(think_open) - 1; /* whatever follows the tag */
    return chat_content_len(message) >= len && !memcmp(message->content, think_open, len);
}

bool chat_continues_thought(const runnel_message *message)
{
    return begins_with_thought(message) &&
           !memmem(message->content, chat_content_len(message), think_close, strlen(think_close));
}

static void open_r1_answer(struct writer *writer, enum chat_opening opening, const runnel_message *begun)
{
    if (begun && begins_with_thought(begun))
        return;
    write_control(writer, think_open); /* the template's own, or appended */
    if (opening != CHAT_THINKING)
        write_control(writer, chat_thought_end);
}

int chat_render(const struct chat_template *template, const runnel_message *messages, size_t n_messages,
                enum chat_opening opening, struct chat_prompt *prompt, runnel_error *error)
{
    int code = check_messages(messages, n_messages, opening, error);
    if (code)
        return code;
    struct writer writer = {0};
    const runnel_message *begun = opening == CHAT_CONTINUING ? &messages[--n_messages] : NULL;
    if (template->family == CHAT_R1) {
        render_r1(&writer, messages, n_messages);
        open_r1_answer(&writer, opening, begun);
    } else if (template->family == CHAT_CHATML) {
        render_chatml(&writer, template->default_system, messages, n_messages);
    } else {
        return error_set(
            error, RUNNEL_EUNSUPPORTED,
            "the model has no chat template that is known here: choose one with --chat-template NAME "
            "(in the library: the option chat_template); known ones are %s",
            chat_known_names());
    }
    if (begun)
        write_content(&writer, begun);
    if (writer.failed || writer.text.failed) {
        text_free(&writer.text);
        free(writer.spans);
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the prompt");
    }
    *prompt = (struct chat_prompt){writer.text.bytes, writer.text.len, writer.spans, writer.n_spans};
    return RUNNEL_OK;
}

void chat_prompt_free(struct chat_prompt *prompt)
{
    free(prompt->text);
    free(prompt->control);
    *prompt = (struct chat_prompt){0};
}
