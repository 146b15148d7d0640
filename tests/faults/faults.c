/* faults.c: the wrapped functions. See faults.h. */
#include "faults/faults.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <errno.h>
#include <pcre2.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t n);
void __real_free(void *piece);
void *__real_mmap(void *address, size_t n, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t n);
int __real_mprotect(void *address, size_t n, int protection);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg);
ssize_t __real_pread(int fd, void *buffer, size_t n, off_t offset);
pcre2_code *__real_pcre2_compile_8(PCRE2_SPTR pattern, PCRE2_SIZE len, uint32_t options, int *code,
                                   PCRE2_SIZE *offset, pcre2_compile_context *context);
int __real_pcre2_jit_compile_8(pcre2_code *code, uint32_t options);
pcre2_match_data *__real_pcre2_match_data_create_8(uint32_t n, pcre2_general_context *context);
pcre2_match_context *__real_pcre2_match_context_create_8(pcre2_general_context *context);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t n);
void __wrap_free(void *piece);
void *__wrap_mmap(void *address, size_t n, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *address, size_t n);
int __wrap_mprotect(void *address, size_t n, int protection);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg);
ssize_t __wrap_pread(int fd, void *buffer, size_t n, off_t offset);
pcre2_code *__wrap_pcre2_compile_8(PCRE2_SPTR pattern, PCRE2_SIZE len, uint32_t options, int *code,
                                   PCRE2_SIZE *offset, pcre2_compile_context *context);
int __wrap_pcre2_jit_compile_8(pcre2_code *code, uint32_t options);
pcre2_match_data *__wrap_pcre2_match_data_create_8(uint32_t n, pcre2_general_context *context);
pcre2_match_context *__wrap_pcre2_match_context_create_8(pcre2_general_context *context);

/* The armed fault ----------------------------------------------------------------------------------------- */

static enum fault_kind armed; /* changed only while nothing else runs */
static unsigned first_failing, last_failing;
static atomic_uint n_calls, n_faults;

void faults_arm(enum fault_kind kind, unsigned first, unsigned n_failing)
{
    first_failing = first;
    last_failing = n_failing ? first + n_failing - 1 : UINT32_MAX;
    atomic_store(&n_calls, 0);
    atomic_store(&n_faults, 0);
    armed = kind;
}

void faults_count(void)
{
    faults_arm(FAULT_MEMORY, UINT32_MAX, 1);
}

unsigned faults_n_calls(void)
{
    return atomic_load(&n_calls);
}

unsigned faults_disarm(void)
{
    armed = FAULT_NONE;
    return atomic_load(&n_faults);
}

/* Counts a call that the armed fault is about; true if it is to fail. */
static bool strikes(void)
{
    unsigned call = atomic_fetch_add(&n_calls, 1) + 1;
    if (call < first_failing || call > last_failing)
        return false;
    atomic_fetch_add(&n_faults, 1);
    return true;
}

static bool no_memory(void)
{
    if (armed != FAULT_MEMORY || !strikes())
        return false;
    errno = ENOMEM;
    return true;
}

/* What is alive ------------------------------------------------------------------------------------------- */

/* The pieces that came through here; the C library's own may be freed through here, too, and are passed over.
 */
enum { PIECES_MAX = 1 << 16 };
static void *pieces[PIECES_MAX];
static size_t n_pieces;
static pthread_mutex_t pieces_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_size_t mapped_bytes;

static void *remember(void *piece)
{
    if (!piece)
        return NULL;
    pthread_mutex_lock(&pieces_lock);
    if (n_pieces == PIECES_MAX)
        abort(); /* the count would be wrong from here on */
    pieces[n_pieces++] = piece;
    pthread_mutex_unlock(&pieces_lock);
    return piece;
}

/* Compares addresses alone: the piece may be gone already. */
static void forget(uintptr_t piece)
{
    pthread_mutex_lock(&pieces_lock);
    for (size_t i = n_pieces; i-- > 0;)
        if ((uintptr_t)pieces[i] == piece) {
            pieces[i] = pieces[--n_pieces];
            break;
        }
    pthread_mutex_unlock(&pieces_lock);
}

size_t faults_live_pieces(void)
{
    pthread_mutex_lock(&pieces_lock);
    size_t n = n_pieces;
    pthread_mutex_unlock(&pieces_lock);
    return n;
}

size_t faults_mapped_bytes(void)
{
    return atomic_load(&mapped_bytes);
}

/* Memory and threads -------------------------------------------------------------------------------------- */

void *__wrap_malloc(size_t n)
{
    return no_memory() ? NULL : remember(__real_malloc(n));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return no_memory() ? NULL : remember(__real_calloc(n, size));
}

void *__wrap_realloc(void *old, size_t n)
{
    if (no_memory())
        return NULL;
    uintptr_t before = (uintptr_t)old;
    forget(before); /* before another thread can be given its place */
    void *grown = __real_realloc(old, n);
    remember(grown ? grown : (void *)before);
    return grown;
}

void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
    return no_memory() ? NULL : remember(__real_aligned_alloc(alignment, n));
}

char *__wrap_strdup(const char *text)
{
    return no_memory() ? NULL : remember(__real_strdup(text));
}

char *__wrap_strndup(const char *text, size_t n)
{
    return no_memory() ? NULL : remember(__real_strndup(text, n));
}

void __wrap_free(void *piece)
{
    if (piece)
        forget((uintptr_t)piece);
    __real_free(piece);
}

void *__wrap_mmap(void *address, size_t n, int protection, int flags, int fd, off_t offset)
{
    if (no_memory())
        return MAP_FAILED;
    void *map = __real_mmap(address, n, protection, flags, fd, offset);
    if (map != MAP_FAILED)
        atomic_fetch_add(&mapped_bytes, n);
    return map;
}

int __wrap_mprotect(void *address, size_t n, int protection)
{
    if (!no_memory())
        return __real_mprotect(address, n, protection);
    errno = ENOMEM;
    return -1;
}

int __wrap_munmap(void *address, size_t n)
{
    atomic_fetch_sub(&mapped_bytes, n);
    return __real_munmap(address, n);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg)
{
    return no_memory() ? EAGAIN : __real_pthread_create(thread, attributes, run, arg);
}

/* PCRE2, which allocates where --wrap does not reach ------------------------------------------------------ */

pcre2_code *__wrap_pcre2_compile_8(PCRE2_SPTR pattern, PCRE2_SIZE len, uint32_t options, int *code,
                                   PCRE2_SIZE *offset, pcre2_compile_context *context)
{
    if (!no_memory())
        return __real_pcre2_compile_8(pattern, len, options, code, offset, context);
    *code = PCRE2_ERROR_NOMEMORY;
    *offset = 0;
    return NULL;
}

int __wrap_pcre2_jit_compile_8(pcre2_code *code, uint32_t options)
{
    return no_memory() ? PCRE2_ERROR_NOMEMORY : __real_pcre2_jit_compile_8(code, options);
}

pcre2_match_data *__wrap_pcre2_match_data_create_8(uint32_t n, pcre2_general_context *context)
{
    return no_memory() ? NULL : __real_pcre2_match_data_create_8(n, context);
}

pcre2_match_context *__wrap_pcre2_match_context_create_8(pcre2_general_context *context)
{
    return no_memory() ? NULL : __real_pcre2_match_context_create_8(context);
}

/* Reads --------------------------------------------------------------------------------------------------- */

ssize_t __wrap_pread(int fd, void *buffer, size_t n, off_t offset)
{
    if (armed < FAULT_READ_SHORT || !strikes())
        return __real_pread(fd, buffer, n, offset);
    switch (armed) {
    case FAULT_READ_SHORT:
        return __real_pread(fd, buffer, n > 1 ? n / 2 : n, offset);
    case FAULT_READ_END:
        return 0;
    default:
        errno = armed == FAULT_READ_SIGNAL ? EINTR : EIO;
        return -1;
    }
}
