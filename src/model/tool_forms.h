/* tool_forms.h: the forms in which models write calls of tools, as a table.
 *
 * A form is a list of steps: what a call consists of, in the order of its bytes. tool_scan.c reads a text by them, and a grammar
 * that makes a model write calls of this form is to be written from the same steps. Which form a model has is found in what its
 * chat template renders (chat_tools.h). Static data; any thread. */
#ifndef RUNNEL_MODEL_TOOL_FORMS_H
#define RUNNEL_MODEL_TOOL_FORMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tool_step_kind {
    TOOL_TEXT,   /* one of the texts */
    TOOL_OPEN,   /* one of the texts, or nothing; TOOL_CLOSE of the same pair depends on it */
    TOOL_CLOSE,  /* if one was opened, the text of the same index, or nothing */
    TOOL_SPACE,  /* white space, or nothing */
    TOOL_NAME,   /* the name of a tool */
    TOOL_OBJECT, /* the arguments: a JSON object */
    TOOL_REST, /* the end of the JSON object that the arguments stand in, with what members there are before it */
};

enum {
    TOOL_PAIRS = 3,   /* of TOOL_OPEN and TOOL_CLOSE in a form */
    TOOL_CHOICES = 8, /* texts of a step at most */
};

struct tool_step {
    enum tool_step_kind kind;
    /* TOOL_TEXT, TOOL_OPEN, TOOL_CLOSE: none of a step is the beginning of another; TOOL_CLOSE: NULL where nothing closes. */
    const char *texts[TOOL_CHOICES];
    uint8_t pair;
    bool at_line; /* where no TOOL_OPEN came before: only at the beginning of a line */
    bool always;  /* TOOL_OPEN: must come. TOOL_CLOSE, of one text: may come whatever was opened */
};

struct tool_form {
    const char *name;
    const struct tool_step *steps;
    size_t n_steps;
    const char
        *sign; /* what a template of this form writes at a call of xyzzy (chat_tools.h), and others do not */
    const char *
        example; /* of a call, for models whose template says nothing of tools; begins and ends with these: */
    const char *begin, *end; /* around all calls of an answer, */
    const char *between;     /* and between two */
    uint8_t
        tag; /* pair of the TOOL_OPEN whose first text is for calls alone: behind it a name is one of a tool's */
};

/* All of them. */
const struct tool_form *tool_forms(size_t *n);

/* Whether a control token of this name belongs to calls of the form: it counts as text then. */
bool tool_form_has_token(const struct tool_form *form, const char *name, size_t len);

#endif
