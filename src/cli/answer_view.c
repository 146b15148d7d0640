/* answer_view.c: an answer as it comes, and the reports behind it.
 *
 * A signal handler has no other way to speak than variables of the file; they are all that is owned here. */
#include "cli/answer_view.h"

#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Waiting ------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;
static volatile sig_atomic_t resumed; /* after Ctrl-Z, or another signal that stops the program */
static int interrupt_descriptor = -1; /* readable once Ctrl-C was pressed */

/* What is to be put right before a second Ctrl-C ends the program; NULL: nothing. */
static void (*before_the_end)(void);

/* The first Ctrl-C asks the answer to end; the next one is the system's own. */
static void on_interrupt(int signal_number)
{
    if (interrupted) {
        if (before_the_end)
            before_the_end();
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
    interrupted = 1;
    const uint64_t one = 1;
    if (write(interrupt_descriptor, &one, sizeof one) < 0)
        return; /* it is readable already */
}

static void on_resume(int signal_number)
{
    (void)signal_number;
    resumed = 1;
}

/* Makes Ctrl-C readable, and notes a pause, from now on. */
static int watch_signals(void (*restore)(void), runnel_error *error)
{
    if (interrupt_descriptor < 0)
        interrupt_descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (interrupt_descriptor < 0)
        return error_set(error, RUNNEL_EIO, "no descriptor to be told of Ctrl-C: %s", strerror(errno));
    uint64_t n_earlier;
    ssize_t n_read =
        read(interrupt_descriptor, &n_earlier, sizeof n_earlier); /* those belong to an earlier answer */
    (void)n_read;
    interrupted = resumed = 0;
    before_the_end = restore;
    signal(SIGINT, on_interrupt);
    signal(SIGCONT, on_resume);
    return RUNNEL_OK;
}

/* Shows events until the last one, with which it returns 0, or until there is none for now. */
static bool show_waiting(runnel_future *future, struct answer_view *view)
{
    runnel_event event = {.size = sizeof event};
    while (!runnel_next(future, &event, 0) && event.kind != RUNNEL_EVENT_NONE) {
        if (view && !answer_view_show(view, &event))
            runnel_cancel(future); /* nobody reads any more */
        if (event.kind == RUNNEL_EVENT_FINISH)
            return true;
    }
    return false;
}

/* The clock went on while the program was stopped: as after one token, there is no speed. */
static void forget_times(runnel_response *response)
{
    response->prefill_ms = 0;
    response->decode_ms = 0;
}

int answer_wait(runnel_engine *engine, const runnel_request *request, struct answer_view *view,
                void (*restore)(void), runnel_response *response, runnel_error *error)
{
    runnel_future *future;
    runnel_request watched = *request;
    watched.wants_events = true;
    int failure = watch_signals(restore, error);
    if (!failure)
        failure = runnel_submit(engine, &watched, 1, &future, error);
    if (failure)
        return failure;
    struct pollfd waits[] = {{.fd = runnel_descriptor(future), .events = POLLIN},
                             {.fd = interrupt_descriptor, .events = POLLIN}};
    if (waits[0].fd < 0)
        failure = error_set(error, RUNNEL_EIO, "no descriptor for the answer: %s", strerror(errno));
    while (!failure && !show_waiting(future, view)) {
        poll(waits, 2, -1);
        if (interrupted) {
            runnel_cancel(future);
            waits[1].fd = -1; /* once is enough */
        }
    }
    if (!failure)
        failure = runnel_wait(future, response, error);
    if (!failure && resumed)
        forget_times(response);
    runnel_free(future);
    return failure;
}

bool answer_was_interrupted(void)
{
    return interrupted;
}

/* Streaming ----------------------------------------------------------------------------------------------- */

/* Lines break between words where a person reads them; elsewhere not a byte changes. */
static void begin_text(struct answer_view *view, FILE *out)
{
    view->wraps = isatty(fileno(out));
    if (view->wraps)
        wrap_start(&view->wrap, out, 0);
}

static void show_text(struct answer_view *view, FILE *out, const runnel_event *event)
{
    if (view->wraps)
        wrap_write(&view->wrap, event->text, event->text_len);
    else
        fwrite(event->text, 1, event->text_len, out);
    fflush(out);
}

static void end_text(struct answer_view *view)
{
    if (view->wraps)
        wrap_end(&view->wrap);
    view->wraps = false;
}

static void show_thought(struct answer_view *view, const runnel_event *event)
{
    if (!view->thoughts)
        return;
    if (!view->in_thought) {
        begin_text(view, view->thoughts);
        if (view->dims)
            fputs("\033[2m", view->thoughts);
    }
    view->in_thought = true;
    show_text(view, view->thoughts, event);
}

static void end_thought(struct answer_view *view)
{
    if (!view->in_thought)
        return;
    view->in_thought = false;
    end_text(view);
    fputs(view->dims ? "\033[0m\n" : "\n", view->thoughts);
    fflush(view->thoughts);
}

static void show_answer(struct answer_view *view, const runnel_event *event)
{
    if (view->in_thought) {
        end_thought(view);
        fputc('\n', view->thoughts); /* a blank line before the answer */
        fflush(view->thoughts);
    }
    if (!view->wrote)
        begin_text(view, stdout);
    view->wrote = true;
    show_text(view, stdout, event);
}

bool answer_view_show(struct answer_view *view, const runnel_event *event)
{
    if (event->kind == RUNNEL_EVENT_THOUGHT) {
        show_thought(view, event);
    } else if (event->kind == RUNNEL_EVENT_ANSWER) {
        show_answer(view, event);
    } else if (event->kind == RUNNEL_EVENT_FINISH) {
        end_thought(view);
        end_text(view);
        if (view->wrote)
            putchar('\n');
        fflush(stdout);
    }
    return !ferror(stdout);
}

struct answer_view answer_view_open(void)
{
    bool out_is_terminal = isatty(STDOUT_FILENO), err_is_terminal = isatty(STDERR_FILENO);
    return (struct answer_view){
        .thoughts = out_is_terminal   ? stdout
                    : err_is_terminal ? stderr
                                      : NULL,
        .dims = out_is_terminal || err_is_terminal,
    };
}

/* Reports ------------------------------------------------------------------------------------------------- */

static const char *finish_name(enum runnel_finish_reason reason)
{
    switch (reason) {
    case RUNNEL_FINISH_STOP:
        return "stop";
    case RUNNEL_FINISH_LENGTH:
        return "length";
    case RUNNEL_FINISH_CANCELLED:
        return "cancelled";
    case RUNNEL_FINISH_ERROR:
        return "error";
    }
    return "";
}

enum {
    N_FIGURES = 16,
    ALWAYS = 9, /* worth of what is never left out */
    FINISH_WORTH = 8,
};

/* A part of the line behind an answer: what is worth least is left out of a narrow line. */
struct figure {
    const char *separator; /* from the part before it */
    int worth;
    char text[48];
};

struct figures {
    struct figure list[N_FIGURES];
    size_t n;
};

__attribute__((format(printf, 4, 5))) static void add_figure(struct figures *figures, const char *separator,
                                                             int worth, const char *format, ...)
{
    struct figure *figure = &figures->list[figures->n++];
    va_list args;
    figure->separator = separator;
    figure->worth = worth;
    va_start(args, format);
    vsnprintf(figure->text, sizeof figure->text, format, args);
    va_end(args);
}

/* Columns of the line with its brackets. */
static size_t figures_width(const struct figures *figures)
{
    size_t width = strlen("[]");
    for (size_t i = 0; i < figures->n; i++)
        width += (i ? strlen(figures->list[i].separator) : 0) + strlen(figures->list[i].text);
    return width;
}

/* Leaves parts out until the line fits, or all that is left is worth having. */
static void shorten_figures(struct figures *figures, size_t n_columns)
{
    while (figures_width(figures) > n_columns) {
        size_t least = 0;
        for (size_t i = 1; i < figures->n; i++)
            if (figures->list[i].worth < figures->list[least].worth)
                least = i;
        if (figures->list[least].worth == ALWAYS)
            return;
        figures->n--;
        memmove(&figures->list[least], &figures->list[least + 1],
                (figures->n - least) * sizeof *figures->list);
    }
}

/* Breaks only between parts, never before a unit. */
static void print_figures(const struct figures *figures, size_t n_columns)
{
    size_t column = 1;
    fputs("\n[", stderr);
    for (size_t i = 0; i < figures->n; i++) {
        const struct figure *figure = &figures->list[i];
        const char *separator = i ? figure->separator : "";
        size_t len = strlen(figure->text), end = i + 1 == figures->n ? strlen("]") : strlen(" |");
        if (i && column + strlen(separator) + len + end > n_columns) {
            size_t n_kept = strlen(separator); /* without the space at the line's end */
            while (n_kept && separator[n_kept - 1] == ' ')
                n_kept--;
            fprintf(stderr, "%.*s\n ", (int)n_kept, separator);
            column = 1;
        } else {
            fputs(separator, stderr);
            column += strlen(separator);
        }
        fputs(figure->text, stderr);
        column += len;
    }
    fputs("]\n", stderr);
}

static double per_second(double n, double ms)
{
    return ms > 0 ? n / ms * 1e3 : 0;
}

/* The same for people. */
static const char *describe_finish(enum runnel_finish_reason reason)
{
    return reason == RUNNEL_FINISH_STOP     ? "complete"
           : reason == RUNNEL_FINISH_LENGTH ? "cut off"
                                            : finish_name(reason);
}

/* Tokens after the first one: those that decode_ms covers. An answer of one token or none has no speed. */
static double decoded(const runnel_response *response)
{
    return response->n_tokens ? response->n_tokens - 1.0 : 0;
}

/* Digits behind the point, so that the line stays short. */
static int places(double value)
{
    return value < 1000 ? 1 : 0;
}

/* That an answer is complete is worth less than that it is not. */
static void add_finish(struct figures *figures, const runnel_response *response)
{
    bool is_complete = response->finish_reason == RUNNEL_FINISH_STOP;
    add_figure(figures, " | ", is_complete ? 4 : FINISH_WORTH, "%s",
               describe_finish(response->finish_reason));
}

static double prefill_speed(const runnel_response *response)
{
    return per_second(response->n_prompt_tokens - response->n_cached_tokens, response->prefill_ms);
}

static double decode_speed(const runnel_response *response)
{
    return per_second(decoded(response), response->decode_ms);
}

/* What was read of the model, once a step: tokens that were guessed came in the steps of others. */
static double decode_gb_s(const runnel_model_info *info, const runnel_response *response)
{
    double n_steps = decoded(response) - response->n_draft_accepted;
    return per_second(n_steps, response->decode_ms) * (double)info->bytes_per_token / 1e9;
}

/* An answer that ended before its first token measured nothing of these. */
static void add_prefill(struct figures *figures, const runnel_response *response)
{
    if (response->prefill_ms <= 0)
        return;
    add_figure(figures, ", ", ALWAYS, "prefill %.1f tok/s", prefill_speed(response));
    add_figure(figures, ", ", ALWAYS, "first token %.0f ms", response->prefill_ms);
}

static void add_decode(struct figures *figures, const runnel_model_info *info,
                       const runnel_response *response)
{
    double decode = decode_speed(response);
    if (decode <= 0)
        return;
    add_figure(figures, ", ", ALWAYS, "decode %.1f tok/s", decode);
    add_figure(figures, ", ", ALWAYS, "%.1f GB/s", decode_gb_s(info, response));
    if (response->n_draft_accepted)
        add_figure(figures, ", ", ALWAYS, "guessed %u of %u", response->n_draft_accepted,
                   response->n_draft_tokens);
}

/* All of it; nothing is left out, as somebody asked for it. */
static void add_all(struct figures *figures, const runnel_model_info *info, const runnel_response *response,
                    double load_ms)
{
    if (load_ms > 0)
        add_figure(figures, "", ALWAYS, "load %.2f s", load_ms / 1e3);
    add_figure(figures, " | ", ALWAYS, "prompt %u tokens", response->n_prompt_tokens);
    if (response->n_cached_tokens)
        add_figure(figures, " ", ALWAYS, "(%u cached)", response->n_cached_tokens);
    add_prefill(figures, response);
    add_figure(figures, " | ", ALWAYS, "answer %u token%s", response->n_tokens,
               response->n_tokens == 1 ? "" : "s");
    add_decode(figures, info, response);
    add_figure(figures, " | ", ALWAYS, "%s",
               response->finish_reason == RUNNEL_FINISH_LENGTH ? "cut off at its limit"
                                                               : describe_finish(response->finish_reason));
}

/* What one answer cost: the model was loaded for it. */
static void add_speeds(struct figures *figures, const runnel_model_info *info,
                       const runnel_response *response, double load_ms)
{
    double prefill = prefill_speed(response), decode = decode_speed(response);
    add_figure(figures, "", 1, "load %.2f s", load_ms / 1e3);
    if (prefill > 0)
        add_figure(figures, " | ", 3, "prefill %.*f tok/s", places(prefill), prefill);
    if (decode > 0) {
        add_figure(figures, " | ", ALWAYS, "decode %.*f tok/s", places(decode), decode);
        add_figure(figures, ", ", 2, "%.1f GB/s", decode_gb_s(info, response));
    }
    add_finish(figures, response);
}

/* What a turn of a conversation took of the context. */
static void add_counts(struct figures *figures, const runnel_response *response)
{
    double prefill_s = response->prefill_ms / 1e3, decode = decode_speed(response);
    add_figure(figures, "", 3, "prompt %u", response->n_prompt_tokens);
    if (response->n_cached_tokens)
        add_figure(figures, " ", 1, "(%u cached)", response->n_cached_tokens);
    if (prefill_s > 0)
        add_figure(figures, " ", 2, "in %.*f s", prefill_s < 100 ? 1 : 0, prefill_s);
    add_figure(figures, " | ", ALWAYS, "answer %u", response->n_tokens);
    if (decode > 0)
        add_figure(figures, ", ", ALWAYS, "%.*f tok/s", places(decode), decode);
    add_finish(figures, response);
}

void answer_print_timings(const runnel_model *model, const runnel_response *response, double load_ms,
                          bool verbose)
{
    struct figures figures = {.n = 0};
    size_t n_columns = wrap_columns(stderr);
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    if (verbose)
        add_all(&figures, &info, response, load_ms);
    else if (load_ms > 0)
        add_speeds(&figures, &info, response, load_ms);
    else
        add_counts(&figures, response);
    shorten_figures(&figures, n_columns);
    print_figures(&figures, n_columns);
}

void answer_remark_thought(const runnel_response *response)
{
    if (response->thought_end == RUNNEL_THOUGHT_LOOP)
        wrap_print(stderr, 0, "runnel: the thought went in circles, and was closed\n");
    if (!response->reasoning_len || response->text_len)
        return;
    if (response->finish_reason == RUNNEL_FINISH_LENGTH)
        wrap_print(
            stderr, 0,
            "runnel: cut off within its thoughts, so there is no answer: a larger -n (and --ctx) gives "
            "room for one, --no-think leaves the thoughts out\n");
    else if (response->finish_reason == RUNNEL_FINISH_STOP)
        wrap_print(stderr, 0,
                   "runnel: the model ended behind its thought, so there is no answer: --no-think leaves the "
                   "thoughts out\n");
}

int answer_print_json(const runnel_model *model, const runnel_response *response, uint64_t seed)
{
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, response->logits_hash);
    double decode_tok_s = per_second(decoded(response), response->decode_ms);
    json_t *object = json_pack(
        "{s:s%, s:s%, s:s, s:i, s:i, s:i, s:i, s:s?, s:I, s:s, s:{s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:i}}",
        "text", response->text, response->text_len, "reasoning", response->reasoning, response->reasoning_len,
        "finish_reason", finish_name(response->finish_reason), "prompt_tokens",
        (int)response->n_prompt_tokens, "cached_tokens", (int)response->n_cached_tokens, "completion_tokens",
        (int)response->n_tokens, "reasoning_tokens", (int)response->n_reasoning_tokens, "thought_end",
        runnel_thought_end_name(response->thought_end), "seed", (json_int_t)seed, "logits_hash", hash,
        "timings", "load_ms", info.load_ms, "prefill_ms", response->prefill_ms, "prefill_tok_s",
        per_second(response->n_prompt_tokens - response->n_cached_tokens, response->prefill_ms), "decode_ms",
        response->decode_ms, "decode_tok_s", decode_tok_s, "decode_gb_s", decode_gb_s(&info, response),
        "draft_n", (int)response->n_draft_tokens, "draft_accepted_n", (int)response->n_draft_accepted);
    if (!object) {
        fprintf(stderr, "runnel: the answer cannot be written as JSON\n");
        return EXIT_FAILED;
    }
    json_dumpf(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
    return EXIT_DONE;
}
