/* output.c: from token bytes to text events, and those of calls.
 *
 * Four stages, each a byte or a character at a time, so that the result does not depend on how the text was
 * cut into tokens:
 *
 *   1. bytes -> whole characters (base/utf8.h)
 *   2. tags (thought_tags.h): text up to <think> is answer, up to </think> thought, from there on answer
 *   3. with tools, calls in the answer (model/tool_reader.h): what may become one is held back
 *   4. stop texts, in the answer alone: of all stop texts, the one that is complete first ends the answer; if
 *      several end at the same place, the longest is cut off. Each has a Knuth-Morris-Pratt automaton, so time
 *      is linear in the text whatever the stop texts are. Held back is the longest end of the answer that begins
 *      a stop text. Clients send stop texts such as an empty line with every request; in a thought they would end
 *      it before there is an answer, and so would the empty lines that a model writes between the two.
 *
 * A struct output owns its buffers; one thread at a time. No allocation after output_create. */
#include "engine/output.h"

#include "base/utf8.h"
#include "engine/thought_tags.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_CAP = 1024 /* bytes an event at most */ };

static const char BLANKS[] = " \t\r\n";

struct stop_text {
    const char *text; /* [len] */
    uint32_t *border; /* [len] border[i]: longest proper beginning of text[0..i] that also ends it */
    size_t len;
    size_t matched; /* bytes of it that the text ends with now */
    bool is_blank;  /* white space alone */
};

struct output {
    struct utf8_assembler utf8;

    struct stop_text *stops; /* [n_stops] */
    size_t n_stops;
    char *held; /* [held_cap] held[held_begin .. held_end): text that may begin a stop text */
    size_t held_begin, held_end, held_cap;
    int stop_index; /* of the one that ended the answer; -1 */
    bool
        is_bare; /* nothing but white space has come behind a thought: stop texts of such do not end the answer */

    struct thought_tags tags; /* bytes that begin a tag are held back */
    unsigned skip_newlines;   /* so many newlines, if they come next, belong to the tag before them */

    const struct tool_form *tool_form; /* NULL: there are no calls */
    const struct tool_names *tool_names;
    uint32_t max_calls;
    bool must_call, drops_text; /* drops_text: what looked like a call is none, and no text either */
    struct tool_reader reader;

    enum output_state state;
    enum runnel_event_kind text_kind;
    size_t text_len;
    char text[TEXT_CAP + 1]; /* certain, and not yet given to on_event */
};

typedef bool event_function(void *user, const runnel_event *event);

struct listener {
    event_function *on_event;
    void *user;
};

/* Creating ------------------------------------------------------------------------------------------------ */

static void compute_borders(struct stop_text *stop)
{
    size_t border = 0;
    stop->border[0] = 0;
    for (size_t i = 1; i < stop->len; i++) {
        while (border && stop->text[i] != stop->text[border])
            border = stop->border[border - 1];
        if (stop->text[i] == stop->text[border])
            border++;
        stop->border[i] = (uint32_t)border;
    }
}

/* Copies the stop texts, with their tables, into one allocation each. */
static int copy_stops(struct output *o, const struct output_options *options, runnel_error *error)
{
    size_t longest = 0;
    for (; o->n_stops < options->n_stop; o->n_stops++) {
        const char *text = options->stop[o->n_stops];
        size_t len = text ? strlen(text) : 0;
        if (len == 0 || len > UINT32_MAX / 8 || !utf8_valid(text, len))
            return error_set(error, RUNNEL_EINVAL, "stop[%zu]: expected UTF-8 of at least 1 byte, found %s",
                             o->n_stops, len ? "something else" : "nothing");
        uint32_t *memory = malloc(len * sizeof(uint32_t) + len);
        if (!memory)
            return error_set(error, RUNNEL_ENOMEM, "stop[%zu]: no memory for %zu bytes", o->n_stops, len);
        char *copy = (char *)(memory + len);
        memcpy(copy, text, len);
        struct stop_text *stop = &o->stops[o->n_stops];
        *stop = (struct stop_text){
            .text = copy, .border = memory, .len = len, .is_blank = strspn(text, BLANKS) == len};
        compute_borders(stop);
        longest = len > longest ? len : longest;
    }
    o->held_cap = 2 * (longest + 1);
    o->held = malloc(o->held_cap);
    return o->held ? RUNNEL_OK
                   : error_set(error, RUNNEL_ENOMEM, "output: no memory for %zu bytes", o->held_cap);
}

int output_create(const struct output_options *options, struct output **output, runnel_error *error)
{
    int status;
    struct output *o = calloc(1, sizeof *o);
    if (o)
        o->stops = calloc(options->n_stop ? options->n_stop : 1, sizeof *o->stops);
    if (!o || !o->stops) {
        status = error_set(error, RUNNEL_ENOMEM, "output: no memory for %zu stop texts", options->n_stop);
        goto fail;
    }
    if ((status = copy_stops(o, options, error)))
        goto fail;
    o->stop_index = -1;
    o->tags = thought_tags_begin(options->split_thoughts, options->starts_in_thought);
    o->tool_form = options->tool_form;
    o->tool_names = options->tool_names;
    o->max_calls = options->max_calls;
    o->must_call = options->must_call;
    *output = o;
    return RUNNEL_OK;

fail:
    output_free(o);
    return status;
}

void output_free(struct output *output)
{
    if (!output)
        return;
    for (size_t i = 0; i < output->n_stops; i++)
        free(output->stops[i].border); /* the text is behind it */
    free(output->stops);
    free(output->held);
    free(output);
}

/* Events ---------------------------------------------------------------------------------------------------- */

static void emit(struct output *o, enum runnel_event_kind kind, const char *text, size_t len,
                 struct listener listener)
{
    const runnel_event event = {.size = sizeof event,
                                .kind = kind,
                                .text = text,
                                .text_len = len,
                                .call = o->reader.scan.n_calls ? o->reader.scan.n_calls - 1u : 0};
    if (o->state != OUTPUT_CANCELLED && !listener.on_event(listener.user, &event))
        o->state = OUTPUT_CANCELLED;
}

static void flush_text(struct output *o, struct listener listener)
{
    size_t len = o->text_len;
    o->text[len] = 0;
    o->text_len = 0;
    if (len)
        emit(o, o->text_kind, o->text, len, listener);
}

static void emit_byte(struct output *o, enum runnel_event_kind kind, char byte, struct listener listener)
{
    bool character_begins = ((uint8_t)byte & 0xc0) != 0x80;
    if (kind != o->text_kind || (character_begins && o->text_len + 4 > TEXT_CAP))
        flush_text(o, listener);
    o->text_kind = kind;
    o->text[o->text_len++] = byte;
}

/* Stage 4: stop texts --------------------------------------------------------------------------------------- */

/* Gives the first n held bytes on. */
static void release_held(struct output *o, size_t n, struct listener listener)
{
    for (size_t i = 0; i < n; i++)
        emit_byte(o, RUNNEL_EVENT_ANSWER, o->held[o->held_begin + i], listener);
    o->held_begin += n;
}

/* Advances one automaton. True if the stop text is complete. */
static bool match_byte(struct stop_text *stop, char byte)
{
    while (stop->matched && byte != stop->text[stop->matched])
        stop->matched = stop->border[stop->matched - 1];
    if (byte == stop->text[stop->matched])
        stop->matched++;
    return stop->matched == stop->len;
}

static void hold_byte(struct output *o, char byte)
{
    if (o->held_end ==
        o->held_cap) { /* at most half is in use, so a byte is moved once a byte taken, or less */
        memmove(o->held, o->held + o->held_begin, o->held_end - o->held_begin);
        o->held_end -= o->held_begin;
        o->held_begin = 0;
    }
    o->held[o->held_end++] = byte;
}

/* Takes a byte of the answer. What comes after a stop text is dropped. */
static void match_stops(struct output *o, char byte, struct listener listener)
{
    size_t complete = 0, hold = 0;
    if (o->state == OUTPUT_STOPPED)
        return;
    hold_byte(o, byte);
    o->is_bare = o->is_bare && byte && strchr(BLANKS, byte);
    for (size_t s = 0; s < o->n_stops; s++) {
        struct stop_text *stop = &o->stops[s];
        bool is_complete = match_byte(stop, byte);
        if (is_complete && stop->is_blank && o->is_bare) {
            stop->matched = 0;
        } else if (is_complete && stop->len > complete) {
            complete = stop->len;
            o->stop_index = (int)s;
        }
        hold = stop->matched > hold ? stop->matched : hold;
    }
    release_held(o, o->held_end - o->held_begin - (complete ? complete : hold), listener);
    if (complete) {
        o->held_begin = o->held_end;
        o->state = o->state == OUTPUT_CANCELLED ? OUTPUT_CANCELLED : OUTPUT_STOPPED;
    }
}

/* A thought or a call begins: no stop text goes on behind it. */
static void forget_matches(struct output *o, struct listener listener)
{
    release_held(o, o->held_end - o->held_begin, listener);
    for (size_t s = 0; s < o->n_stops; s++)
        o->stops[s].matched = 0;
}

/* Stage 3: calls -------------------------------------------------------------------------------------------- */

static void begin_call(struct output *o, struct listener listener)
{
    const char *name = o->tool_names->names[o->reader.scan.name];
    forget_matches(o, listener);
    o->is_bare = false;
    flush_text(o, listener);
    emit(o, RUNNEL_EVENT_CALL, name, strlen(name), listener);
}

static void end_call(struct output *o, struct listener listener)
{
    flush_text(o, listener);
    emit(o, RUNNEL_EVENT_CALL_END, "", 0, listener);
    if (o->reader.scan.n_calls == o->max_calls && o->state == OUTPUT_GOING_ON)
        o->state = OUTPUT_STOPPED;
}

struct part_listener {
    struct output *output;
    struct listener listener;
};

static void on_part(void *user, enum tool_part part, char byte)
{
    const struct part_listener *to = user;
    if (to->output->state == OUTPUT_STOPPED) /* by the end of the last call */
        return;
    switch (part) {
    case TOOL_PART_TEXT:
        if (!to->output->drops_text)
            match_stops(to->output, byte, to->listener);
        break;
    case TOOL_PART_BEGIN:
        begin_call(to->output, to->listener);
        break;
    case TOOL_PART_ARGUMENT:
        emit_byte(to->output, RUNNEL_EVENT_ARGUMENTS, byte, to->listener);
        break;
    case TOOL_PART_END:
        end_call(to->output, to->listener);
        break;
    }
}

static void split_calls(struct output *o, char byte, struct listener listener)
{
    struct part_listener to = {o, listener};
    if (!o->tool_form)
        match_stops(o, byte, listener);
    else if (o->state == OUTPUT_GOING_ON)
        tool_reader_push(&o->reader, o->tool_form, o->tool_names, byte, (struct tool_listener){on_part, &to});
}

/* The text, or the answer before a thought, is at its end. */
static void finish_calls(struct output *o, struct listener listener)
{
    struct part_listener to = {o, listener};
    tool_reader_finish(&o->reader, (struct tool_listener){on_part, &to});
}

/* Stage 2: tags --------------------------------------------------------------------------------------------- */

static void pass_byte(struct output *o, enum thought_phase phase, char byte, struct listener listener)
{
    if (phase == IN_THOUGHT)
        emit_byte(o, RUNNEL_EVENT_THOUGHT, byte, listener);
    else
        split_calls(o, byte, listener);
}

/* The held-back beginning of a tag turned out to be text. */
static void release_tag(struct output *o, struct thought_tags held, struct listener listener)
{
    for (size_t i = 0; i < held.n_matched; i++)
        pass_byte(o, held.phase, thought_tags_matched(&held)[i], listener);
}

static void end_phase(struct output *o, enum thought_phase ended, struct listener listener)
{
    o->skip_newlines = ended == IN_THOUGHT ? 2 : 1;
    o->is_bare = ended == IN_THOUGHT;
    if (ended == BEFORE_THOUGHT) {
        finish_calls(o, listener);
        forget_matches(o, listener);
    }
}

static void split_tags(struct output *o, char byte, struct listener listener)
{
    if (o->skip_newlines) {
        o->skip_newlines = byte == '\n' ? o->skip_newlines - 1 : 0;
        if (byte == '\n')
            return;
    }
    struct thought_tags before = o->tags;
    if (tool_scan_in_call(&o->reader.scan)) { /* arguments may speak of thoughts */
        split_calls(o, byte, listener);
        return;
    }
    if (thought_tags_push(&o->tags, byte)) {
        end_phase(o, before.phase, listener);
        return;
    }
    if (o->tags.n_matched > before.n_matched) /* held back too */
        return;
    release_tag(o, before, listener);
    if (!o->tags.n_matched)
        pass_byte(o, before.phase, byte, listener);
}

/* Stage 1 and the entrances ------------------------------------------------------------------------------- */

enum output_state output_push(struct output *o, const char *bytes, size_t len, event_function *on_event,
                              void *user)
{
    struct listener listener = {on_event, user};
    for (size_t i = 0; i < len && o->state == OUTPUT_GOING_ON; i++) {
        char characters[UTF8_PUSH_MAX];
        size_t n = utf8_push(&o->utf8, (uint8_t)bytes[i], characters);
        for (size_t j = 0; j < n; j++)
            split_tags(o, characters[j], listener);
    }
    flush_text(o, listener);
    return o->state;
}

void output_cut_character(struct output *o)
{
    o->utf8 = (struct utf8_assembler){.n_bytes = 0};
}

enum output_state output_finish(struct output *o, bool is_cut, event_function *on_event, void *user)
{
    struct listener listener = {on_event, user};
    char characters[UTF8_PUSH_MAX];
    size_t n = o->state == OUTPUT_GOING_ON && !is_cut ? utf8_finish(&o->utf8, characters) : 0;
    for (size_t j = 0; j < n; j++)
        split_tags(o, characters[j], listener);
    release_tag(o, o->tags, listener);
    o->tags.n_matched = 0;
    o->drops_text = o->must_call;
    finish_calls(o, listener);
    release_held(o, o->held_end - o->held_begin, listener);
    flush_text(o, listener);
    return o->state;
}

bool output_in_thought(const struct output *output)
{
    return output->tags.phase == IN_THOUGHT;
}

int output_stop_index(const struct output *output)
{
    return output->stop_index;
}
