/* jinja.c: reads the tags of a chat template, drops what plain conversations cannot reach, writes the rest in
 * one form.
 *
 * White space follows the environment that model templates are written for: trim_blocks, lstrip_blocks, and
 * no newline kept at the template's end. Owns nothing beyond a call; any thread. */
#include "model/jinja.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEMPLATE_BYTES = 256 << 10, MAX_TOKENS = 1024, MAX_DEPTH = 32 };

enum token_type { JINJA_WORD, JINJA_STRING, JINJA_OPERATOR };

struct token {
    enum token_type type;
    size_t begin, len; /* in reader.decoded */
};

enum frame_kind { FRAME_IF, FRAME_FOR };

struct frame { /* an if or a for that is open */
    enum frame_kind kind;
    bool parent_live; /* what is around it can be reached */
    bool live;        /* so can the branch that is being read */
    bool decided;     /* a branch that is always taken was seen: the ones after it are dead */
    bool written;     /* an "if" line stands in the skeleton */
    bool takes_all;   /* the first condition holds for every user and assistant message */
};

struct reader {
    const char *at, *end;
    bool line_starts;    /* the tag before took the newline before `at` with it */
    struct text decoded; /* the text of the tokens of one tag, strings without escapes */
    struct token tokens[MAX_TOKENS];
    size_t n_tokens;
    struct frame frames[MAX_DEPTH];
    size_t n_frames;
    struct text line; /* the statement being written */
    struct text *out;
};

/* Conditions that no plain conversation fulfils: there are no tools, and a generation prompt is always asked
 * for. */
static const char *const never[] = {
    "tools",
    "not add_generation_prompt is defined",
    "message['role']=='tool'",
    "message['role']=='assistant'and message['content']is none",
    "message['role']=='assistant'and'tool_calls'in message",
    "ns['is_tool']", /* nothing that can be reached sets it: such a line would be in no known skeleton */
};

/* Conditions that mean the same as a shorter one where there are no tools and every message has a content. */
static const struct {
    const char *written, *meaning;
} same[] = {
    {"message['role']=='assistant'and message['content']is not none", "message['role']=='assistant'"},
    {"message['role']=='assistant'and'tool_calls'not in message", "message['role']=='assistant'"},
    {"add_generation_prompt and not ns['is_tool']", "add_generation_prompt"},
};

#define QWEN_ALL                                                                                             \
    "(message['role']=='user')or(message['role']=='system'and not loop['first'])or("                         \
    "message['role']=='assistant'and not message['tool_calls'])"

/* Assignments that change nothing a plain conversation can see. */
static const char *const idle[] = {
    "ns['is_tool']=false",
};

static bool is_word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool add_token(struct reader *reader, enum token_type type, size_t begin)
{
    if (reader->n_tokens == MAX_TOKENS)
        return false;
    reader->tokens[reader->n_tokens++] = (struct token){type, begin, reader->decoded.len - begin};
    return true;
}

static bool read_string(struct reader *reader)
{
    size_t begin = reader->decoded.len;
    char quote = *reader->at++;
    for (; reader->at < reader->end && *reader->at != quote; reader->at++) {
        char c = *reader->at;
        if (c == '\\') {
            static const char escapes[] = "n\nt\tr\r\\\\''\"\"";
            if (++reader->at == reader->end)
                return false;
            size_t i = 0;
            while (escapes[i] && escapes[i] != *reader->at)
                i += 2;
            if (!escapes[i])
                return false;
            c = escapes[i + 1];
        }
        text_add(&reader->decoded, &c, 1);
    }
    if (reader->at == reader->end)
        return false;
    reader->at++;
    return add_token(reader, JINJA_STRING, begin);
}

/* Reads the tokens of a tag up to its closing mark ("%}" or "}}") and passes that. *trims tells whether the
 * mark began with a minus. False: something that is not understood. */
static bool read_tag(struct reader *reader, const char *close, bool *trims)
{
    static const char *const doubles[] = {"==", "!=", "<=", ">=", "//", "**"};
    reader->n_tokens = 0;
    reader->decoded.len = 0;
    while (reader->at < reader->end) {
        size_t left = (size_t)(reader->end - reader->at), begin = reader->decoded.len, width = 1;
        char c = *reader->at;
        *trims = c == '-' && left >= 3 && memcmp(reader->at + 1, close, 2) == 0;
        if (*trims || (left >= 2 && memcmp(reader->at, close, 2) == 0)) {
            reader->at += *trims ? 3 : 2;
            return true;
        }
        if (is_space(c)) {
            reader->at++;
            continue;
        }
        if (c == '\'' || c == '"') {
            if (!read_string(reader))
                return false;
            continue;
        }
        if (is_word_byte(c)) {
            while (width < left && is_word_byte(reader->at[width]))
                width++;
        } else if (strchr("()[]{}.,:=!<>+-*/%|~", c) && c) {
            for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++)
                if (left >= 2 && memcmp(reader->at, doubles[i], 2) == 0)
                    width = 2;
        } else {
            return false;
        }
        text_add(&reader->decoded, reader->at, width);
        reader->at += width;
        if (!add_token(reader, is_word_byte(c) ? JINJA_WORD : JINJA_OPERATOR, begin))
            return false;
    }
    return false;
}

static bool token_is(const struct reader *reader, size_t i, const char *text)
{
    return i < reader->n_tokens && reader->tokens[i].type != JINJA_STRING &&
           reader->tokens[i].len == strlen(text) &&
           memcmp(reader->decoded.bytes + reader->tokens[i].begin, text, reader->tokens[i].len) == 0;
}

static void write_quoted(struct text *out, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == '\n')
            text_add(out, "\\n", 2);
        else if (bytes[i] == '\'' || bytes[i] == '\\')
            text_add(out, bytes[i] == '\'' ? "\\'" : "\\\\", 2);
        else
            text_add(out, bytes + i, 1);
    }
}

/* Tokens i, i + 1, i + 2 are 'a' + 'b', and nothing beside them binds more tightly than the plus. */
static bool joins_strings(const struct reader *reader, size_t first, size_t i)
{
    bool before = i == first || token_is(reader, i - 1, "+") || token_is(reader, i - 1, "(");
    bool after = i + 3 >= reader->n_tokens || token_is(reader, i + 3, "+") || token_is(reader, i + 3, ")");
    return before && after && token_is(reader, i + 1, "+") && i + 2 < reader->n_tokens &&
           reader->tokens[i + 2].type == JINJA_STRING;
}

/* Writes tokens from first on, in the one form that jinja.h describes. */
static void write_expression(const struct reader *reader, size_t first, struct text *out)
{
    bool after_word = false;
    for (size_t i = first; i < reader->n_tokens; i++) {
        const struct token *token = &reader->tokens[i];
        const char *bytes = reader->decoded.bytes + token->begin;
        if (token->type == JINJA_STRING) {
            text_add(out, "'", 1);
            write_quoted(out, bytes, token->len);
            for (size_t start = i; joins_strings(reader, first, start); start = i) {
                i += 2;
                write_quoted(out, reader->decoded.bytes + reader->tokens[i].begin, reader->tokens[i].len);
                if (!token_is(reader, i + 1, "+"))
                    break;
            }
            text_add(out, "'", 1);
        } else if (token_is(reader, i, ".") && i > first && i + 1 < reader->n_tokens &&
                   reader->tokens[i + 1].type == JINJA_WORD) {
            text_add(out, "['", 2);
            text_add(out, reader->decoded.bytes + reader->tokens[i + 1].begin, reader->tokens[i + 1].len);
            text_add(out, "']", 2);
            i++;
        } else {
            if (token->type == JINJA_WORD && after_word)
                text_add(out, " ", 1);
            text_add(out, bytes, token->len);
        }
        after_word = reader->tokens[i].type == JINJA_WORD && token->type == JINJA_WORD;
    }
}

static bool live(const struct reader *reader)
{
    return !reader->n_frames || reader->frames[reader->n_frames - 1].live;
}

static void write_line(struct reader *reader, const char *statement, const char *rest)
{
    text_add_string(reader->out, statement);
    text_add_string(reader->out, rest);
    text_add(reader->out, "\n", 1);
}

static bool listed(const char *text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, list[i]) == 0)
            return true;
    return false;
}

/* Opens a branch of the innermost if on the condition that the tag's tokens after the first hold. */
static void begin_branch(struct reader *reader, struct frame *frame)
{
    frame->live = false;
    if (!frame->parent_live || frame->decided)
        return;
    reader->line.len = 0;
    write_expression(reader, 1, &reader->line);
    const char *condition = reader->line.len ? reader->line.bytes : "";
    if (listed(condition, never, sizeof never / sizeof *never))
        return;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (strcmp(condition, same[i].written) == 0)
            condition = same[i].meaning;
    if (frame->takes_all && strcmp(condition, "message['role']=='assistant'") == 0)
        return;
    write_line(reader, frame->written ? "elif " : "if ", condition);
    frame->takes_all |= strcmp(condition, QWEN_ALL) == 0;
    frame->written = frame->live = true;
}

static bool end_frame(struct reader *reader, enum frame_kind kind, const char *line)
{
    if (!reader->n_frames || reader->frames[reader->n_frames - 1].kind != kind || reader->n_tokens != 1)
        return false;
    if (reader->frames[--reader->n_frames].written)
        write_line(reader, line, "");
    return true;
}

static bool begin_frame(struct reader *reader, enum frame_kind kind)
{
    if (reader->n_frames == MAX_DEPTH)
        return false;
    bool parent_live = live(reader);
    struct frame *frame = &reader->frames[reader->n_frames++];
    *frame = (struct frame){.kind = kind, .parent_live = parent_live};
    if (kind == FRAME_IF) {
        begin_branch(reader, frame);
    } else if (parent_live) {
        reader->line.len = 0;
        write_expression(reader, 1, &reader->line);
        write_line(reader, "for ", reader->line.len ? reader->line.bytes : "");
        frame->live = frame->written = true;
    }
    return true;
}

static bool begin_else(struct reader *reader, struct frame *frame)
{
    if (frame->kind != FRAME_IF || reader->n_tokens != 1)
        return false;
    frame->live = frame->parent_live && !frame->decided;
    frame->decided = true;
    if (frame->live && frame->written)
        write_line(reader, "else", "");
    return true;
}

/* A {% statement %}, whose tokens have been read. */
static bool take_statement(struct reader *reader)
{
    struct frame *frame = reader->n_frames ? &reader->frames[reader->n_frames - 1] : NULL;
    if (token_is(reader, 0, "if"))
        return begin_frame(reader, FRAME_IF);
    if (token_is(reader, 0, "for"))
        return begin_frame(reader, FRAME_FOR);
    if (token_is(reader, 0, "elif") && frame && frame->kind == FRAME_IF) {
        begin_branch(reader, frame);
        return true;
    }
    if (token_is(reader, 0, "else") && frame)
        return begin_else(reader, frame);
    if (token_is(reader, 0, "endif"))
        return end_frame(reader, FRAME_IF, "endif");
    if (token_is(reader, 0, "endfor"))
        return end_frame(reader, FRAME_FOR, "endfor");
    if (!token_is(reader, 0, "set"))
        return false;
    reader->line.len = 0;
    write_expression(reader, 1, &reader->line);
    const char *assignment = reader->line.len ? reader->line.bytes : "";
    if (live(reader) && !listed(assignment, idle, sizeof idle / sizeof *idle))
        write_line(reader, "set ", assignment);
    return true;
}

/* The text up to the tag at `end`, which begins with "{" and kind ('{', '%' or '#'; '\0': the template ends)
 * and cuts white space before it if minus. */
static void take_text(struct reader *reader, const char *end, char kind, bool minus)
{
    const char *begin = reader->at;
    reader->at = end;
    if (minus) {
        while (end > begin && is_space(end[-1]))
            end--;
    } else if (kind == '%' || kind == '#') { /* lstrip_blocks: what is only white space on the tag's line */
        const char *line = end;
        while (line > begin && line[-1] != '\n' && is_space(line[-1]))
            line--;
        if (line > begin ? line[-1] == '\n' : reader->line_starts)
            end = line;
    }
    if (begin == end || !live(reader))
        return;
    text_add(reader->out, "text '", 6);
    write_quoted(reader->out, begin, (size_t)(end - begin));
    text_add(reader->out, "'\n", 2);
}

/* Passes the white space that the tag before takes with it. */
static void trim_after(struct reader *reader, bool minus, bool block)
{
    const char *begin = reader->at;
    if (minus)
        while (reader->at < reader->end && is_space(*reader->at))
            reader->at++;
    else if (block && reader->at < reader->end && *reader->at == '\n') /* trim_blocks */
        reader->at++;
    reader->line_starts = reader->at > begin && reader->at[-1] == '\n';
}

/* Passes a comment, from after its "{#" on. */
static bool skip_comment(struct reader *reader, bool *trims)
{
    const char *end = memmem(reader->at, (size_t)(reader->end - reader->at), "#}", 2);
    if (!end)
        return false;
    *trims = end > reader->at && end[-1] == '-';
    reader->at = end + 2;
    return true;
}

/* The next "{{", "{%" or "{#"; the template's end if there is none. */
static const char *find_tag(const struct reader *reader)
{
    for (const char *at = reader->at; at + 1 < reader->end; at++)
        if (at[0] == '{' && (at[1] == '{' || at[1] == '%' || at[1] == '#'))
            return at;
    return reader->end;
}

static bool read_template(struct reader *reader)
{
    reader->line_starts = true;
    while (reader->at < reader->end) {
        const char *tag = find_tag(reader);
        char kind = tag < reader->end ? tag[1] : '\0';
        bool minus = kind && tag + 2 < reader->end && tag[2] == '-', trims = false;
        take_text(reader, tag, kind, minus);
        if (!kind)
            break;
        reader->at += minus ? 3 : 2;
        if (kind == '#') {
            if (!skip_comment(reader, &trims))
                return false;
        } else if (kind == '%') {
            if (!read_tag(reader, "%}", &trims) || !take_statement(reader))
                return false;
        } else {
            if (!read_tag(reader, "}}", &trims))
                return false;
            reader->line.len = 0;
            write_expression(reader, 0, &reader->line);
            if (live(reader))
                write_line(reader, "out ", reader->line.len ? reader->line.bytes : "");
        }
        trim_after(reader, trims, kind != '{');
    }
    return reader->n_frames == 0;
}

int jinja_skeleton(const char *jinja, size_t len, struct text *skeleton, runnel_error *error)
{
    if (len && jinja[len - 1] == '\n')
        len--;
    if (len > MAX_TEMPLATE_BYTES || memchr(jinja, '\0', len) || memchr(jinja, '\r', len))
        return error_set(error, RUNNEL_EUNSUPPORTED, "chat template of %zu bytes: too long or not plain text",
                         len);
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the chat template");
    reader->at = jinja;
    reader->end = jinja + len;
    reader->out = skeleton;
    bool understood = read_template(reader);
    bool failed = reader->decoded.failed || reader->line.failed || skeleton->failed;
    size_t at = (size_t)(reader->at - jinja);
    text_free(&reader->decoded);
    text_free(&reader->line);
    free(reader);
    if (failed)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the chat template");
    if (!understood)
        return error_set(error, RUNNEL_EUNSUPPORTED, "chat template: not understood at byte %zu", at);
    return RUNNEL_OK;
}
