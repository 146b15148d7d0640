/* template_text.h: what chat templates do with strings: characters as Python counts them (code points), each byte with
 * its origin. Functions that make text take the arena it goes to; when memory runs out the arena says so, and the text is
 * cut short. A byte that is no part of valid UTF-8 counts as a character. */
#ifndef RUNNEL_MODEL_TEMPLATE_TEMPLATE_TEXT_H
#define RUNNEL_MODEL_TEMPLATE_TEMPLATE_TEXT_H

#include "model/template/template_value.h"

/* A string being written. Starts zeroed, but for the arena. */
struct string_builder {
    struct template_arena *arena;
    char *bytes;
    unsigned char *origins;
    size_t len, cap;
};

void builder_add(struct string_builder *builder, struct string string);
/* Text that this program makes: never the template's own. */
void builder_add_made(struct string_builder *builder, const char *text);
void builder_add_bytes(struct string_builder *builder, const char *bytes, size_t len, bool own);
/* A code point as UTF-8. */
void builder_add_code(struct string_builder *builder, uint32_t code, bool own);
struct string builder_string(const struct string_builder *builder);

/* The character at bytes[0] (len > 0): its length; its code in *code, 0xfffd0000 + byte where it is not valid. */
size_t text_character(const char *bytes, size_t len, uint32_t *code);
size_t text_count(struct string string);
/* The byte at which character n begins; string.len past the end. */
size_t text_offset(struct string string, size_t n);
bool text_is_space(uint32_t code);
/* The ends that hold only white space, or only characters of `set` (if not NULL), are cut. */
struct string text_strip(struct string string, const struct string *set, bool left, bool right);
/* The first place of `part` at or after `from`; SIZE_MAX: none. */
size_t text_find(struct string string, struct string part, size_t from);
size_t text_find_last(struct string string, struct string part);

enum text_case { TEXT_UPPER, TEXT_LOWER, TEXT_TITLE, TEXT_CAPITALIZE };
struct string text_change_case(struct template_arena *arena, struct string string, enum text_case to);
/* & < > ' " as HTML writes them. */
struct string text_escape(struct template_arena *arena, struct string string);
struct string text_replace(struct template_arena *arena, struct string string, struct string old,
                           struct string new, int64_t n_most);

#endif
