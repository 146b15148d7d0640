/* shared.c: the block of memory that all processes of a server share. See shared.h. */
#include "server/limits/shared.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
               "a lock in shared memory would be held by the dead");

enum {
    COPIES = 4,
    WORD_BYTES = 8,
    MESSAGES = 8, /* of a ring */
    MESSAGE_WORDS = sizeof(struct shared_message) / WORD_BYTES,
    PARTIES = SHARED_WORKERS_MAX + 1, /* with the supervisor */
    CACHE_LINE_BYTES = 64,
};

_Static_assert(sizeof(struct shared_message) % WORD_BYTES == 0, "a message is whole words");

/* Copies -------------------------------------------------------------------------------------------------- */

/* A struct that one process writes and others read: the n-th time it is written into the (n % COPIES)-th copy, and n is
 * published when that is done. Who dies in between has published nothing. A reader copies the latest, and begins again
 * only if the writer has gone so far around meanwhile that it may have come back to the same copy. */
#define COPIES_OF(type)                                                                                      \
    struct {                                                                                                 \
        _Atomic uint64_t n_written;                                                                          \
        _Atomic uint64_t words[COPIES][(sizeof(type) + WORD_BYTES - 1) / WORD_BYTES];                        \
    }

/* Of what lies at one address: the number of writings, the words, and how many there are in a copy. */
#define WRITE_COPY(copies, value, n_bytes)                                                                   \
    write_copy(&(copies)->n_written, (copies)->words[0], sizeof(copies)->words[0] / WORD_BYTES, value,       \
               n_bytes)
#define READ_COPY(copies, value)                                                                             \
    read_copy(&(copies)->n_written, (copies)->words[0], sizeof(copies)->words[0] / WORD_BYTES, value,        \
              sizeof *(value))

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Each word is released, so that who sees one also sees that the copy before it was published. */
static void write_copy(_Atomic uint64_t *n_written, _Atomic uint64_t *words, size_t n_words,
                       const void *value, size_t n_bytes)
{
    uint64_t n = atomic_load_explicit(n_written, memory_order_relaxed) + 1;
    _Atomic uint64_t *copy = words + n % COPIES * n_words;
    for (size_t at = 0; at < n_bytes; at += WORD_BYTES) {
        uint64_t word = 0;
        memcpy(&word, (const char *)value + at, smaller(n_bytes - at, WORD_BYTES));
        atomic_store_explicit(copy++, word, memory_order_release);
    }
    atomic_store_explicit(n_written, n, memory_order_release);
}

/* Returns how often it was written; 0: never, and value is untouched. */
static uint64_t read_copy(const _Atomic uint64_t *n_written, const _Atomic uint64_t *words, size_t n_words,
                          void *value, size_t n_bytes)
{
    uint64_t n;
    do {
        n = atomic_load_explicit(n_written, memory_order_acquire);
        if (!n)
            return 0;
        const _Atomic uint64_t *copy = words + n % COPIES * n_words;
        for (size_t at = 0; at < n_bytes; at += WORD_BYTES) {
            uint64_t word = atomic_load_explicit(copy++, memory_order_acquire);
            memcpy((char *)value + at, &word, smaller(n_bytes - at, WORD_BYTES));
        }
    } while (atomic_load_explicit(n_written, memory_order_acquire) - n >= COPIES - 1);
    return n;
}

/* The block ----------------------------------------------------------------------------------------------- */

struct slots {
    uint64_t n;
    struct shared_slot slots[SHARED_SLOTS_MAX];
};

struct record {
    _Alignas(CACHE_LINE_BYTES) _Atomic int32_t pid;
    _Atomic uint32_t state; /* enum shared_state */
    _Atomic uint32_t n_held, n_held_by_seat[KEYS_MAX + 1], n_expected;
    COPIES_OF(struct shared_gauges) gauges;
    COPIES_OF(struct slots) slots;
};

/* From one process to another; each end belongs to one of them. */
struct ring {
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t n_sent;
    _Atomic uint32_t n_received;
    _Atomic uint64_t words[MESSAGES][MESSAGE_WORDS];
};

struct shared {
    int64_t created_s;
    _Atomic uint32_t n_records; /* those from here on were never anybody's */
    _Atomic uint64_t n_orders;
    struct shared_counters counters;
    COPIES_OF(struct shared_rules) rules;
    COPIES_OF(struct shared_service) service;
    struct record records[SHARED_WORKERS_MAX];
    struct ring rings[PARTIES][PARTIES]; /* [to][from] */
};

int shared_create(struct shared **out, runnel_error *error)
{
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return error_set(error, RUNNEL_ENOMEM,
                         "no memory for what the processes of a server share: %zu bytes", sizeof *shared);
    shared->created_s = (int64_t)time(NULL);
    *out = shared;
    return RUNNEL_OK;
}

void shared_free(struct shared *shared)
{
    if (shared)
        munmap(shared, sizeof *shared);
}

int64_t shared_created_s(const struct shared *shared)
{
    return shared->created_s;
}

/* Counters ------------------------------------------------------------------------------------------------ */

struct shared_counters *shared_counters(struct shared *shared)
{
    return &shared->counters;
}

void shared_add(_Atomic uint64_t *counter, uint64_t n)
{
    if (n)
        atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

uint64_t shared_get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void shared_add_seconds(_Atomic double *sum, double seconds)
{
    double old = atomic_load_explicit(sum, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(sum, &old, old + seconds, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

double shared_get_seconds(const _Atomic double *sum)
{
    return atomic_load_explicit(sum, memory_order_relaxed);
}

/* Records ------------------------------------------------------------------------------------------------- */

static unsigned n_records(const struct shared *shared)
{
    return atomic_load_explicit(&shared->n_records, memory_order_acquire);
}

void shared_join(struct shared_worker *worker, struct shared *shared, unsigned number)
{
    uint32_t n = atomic_load(&shared->n_records);
    *worker = (struct shared_worker){.shared = shared, .number = number};
    atomic_store(&shared->records[number].pid, (int32_t)getpid());
    atomic_store(&shared->records[number].state, SHARED_STARTING);
    while (n <= number && !atomic_compare_exchange_weak(&shared->n_records, &n, number + 1))
        ;
}

static struct record *own_record(const struct shared_worker *worker)
{
    return &worker->shared->records[worker->number];
}

void shared_set_state(struct shared_worker *worker, enum shared_state state)
{
    atomic_store(&own_record(worker)->state, state);
}

void shared_tell_gauges(struct shared_worker *worker, const struct shared_gauges *gauges)
{
    WRITE_COPY(&own_record(worker)->gauges, gauges, sizeof *gauges);
}

static void write_slots(struct record *record, const struct shared_slot *slots, size_t n)
{
    struct slots told = {.n = smaller(n, SHARED_SLOTS_MAX)};
    if (told.n)
        memcpy(told.slots, slots, told.n * sizeof *slots);
    WRITE_COPY(&record->slots, &told, offsetof(struct slots, slots) + told.n * sizeof *slots);
}

void shared_tell_slots(struct shared_worker *worker, const struct shared_slot *slots, size_t n)
{
    write_slots(own_record(worker), slots, n);
}

void shared_tell_totals(struct shared_worker *worker, const uint64_t totals[SHARED_TOTALS])
{
    for (size_t i = 0; i < SHARED_TOTALS; i++) {
        if (totals[i] <= worker->told[i])
            continue;
        shared_add(&worker->shared->counters.totals[i], totals[i] - worker->told[i]);
        worker->told[i] = totals[i];
    }
}

/* Records past the last one that was ever used are not looked at, so that they cost no memory. */
enum shared_state shared_state(const struct shared *shared, unsigned number)
{
    if (number >= n_records(shared))
        return SHARED_NOBODY;
    return (enum shared_state)atomic_load(&shared->records[number].state);
}

pid_t shared_pid(const struct shared *shared, unsigned number)
{
    return number < n_records(shared) ? atomic_load(&shared->records[number].pid) : 0;
}

void shared_read_gauges(const struct shared *shared, unsigned number, struct shared_gauges *gauges)
{
    *gauges = (struct shared_gauges){0};
    READ_COPY(&shared->records[number].gauges, gauges);
}

size_t shared_read_slots(const struct shared *shared, unsigned number,
                         struct shared_slot slots[SHARED_SLOTS_MAX])
{
    struct slots told;
    if (!READ_COPY(&shared->records[number].slots, &told))
        return 0;
    memcpy(slots, told.slots, told.n * sizeof *slots);
    return told.n;
}

unsigned shared_n_workers(const struct shared *shared)
{
    unsigned n = 0;
    for (unsigned i = 0; i < n_records(shared); i++)
        n += shared_state(shared, i) != SHARED_NOBODY;
    return n;
}

void shared_reap(struct shared *shared, unsigned number)
{
    static const struct shared_gauges none;
    struct record *record = &shared->records[number];
    if (shared_state(shared, number) == SHARED_NOBODY && !shared_pid(shared, number))
        return;
    for (size_t i = 0; i <= KEYS_MAX; i++)
        atomic_store(&record->n_held_by_seat[i], 0);
    atomic_store(&record->n_held, 0);
    atomic_store(&record->n_expected, 0);
    WRITE_COPY(&record->gauges, &none, sizeof none);
    write_slots(record, NULL, 0);
    for (unsigned from = 0; from < PARTIES; from++) {
        struct ring *ring = &shared->rings[number][from];
        atomic_store(&ring->n_received, atomic_load(&ring->n_sent));
    }
    atomic_store(&record->state, SHARED_NOBODY);
    atomic_store(&record->pid, 0);
}

/* Places -------------------------------------------------------------------------------------------------- */

void shared_hold(struct shared_worker *worker, uint32_t seat, uint32_t n)
{
    atomic_fetch_add(&own_record(worker)->n_held_by_seat[seat], n);
    atomic_fetch_add(&own_record(worker)->n_held, n);
}

void shared_release(struct shared_worker *worker, uint32_t seat, uint32_t n)
{
    atomic_fetch_sub(&own_record(worker)->n_held_by_seat[seat], n);
    atomic_fetch_sub(&own_record(worker)->n_held, n);
}

uint64_t shared_held(const struct shared *shared)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < n_records(shared); i++)
        n += atomic_load(&shared->records[i].n_held);
    return n;
}

void shared_expect(struct shared_worker *worker, uint32_t n)
{
    atomic_store(&own_record(worker)->n_expected, n);
}

uint64_t shared_load(const struct shared *shared, unsigned number)
{
    const struct record *record = &shared->records[number];
    return (uint64_t)atomic_load(&record->n_held) + atomic_load(&record->n_expected);
}

uint64_t shared_held_by_seat(const struct shared *shared, uint32_t seat)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < n_records(shared); i++)
        n += atomic_load(&shared->records[i].n_held_by_seat[seat]);
    return n;
}

/* Rules and the supervisor -------------------------------------------------------------------------------- */

uint64_t shared_generation(const struct shared *shared)
{
    return atomic_load_explicit(&shared->rules.n_written, memory_order_acquire);
}

uint64_t shared_read_rules(const struct shared *shared, struct shared_rules *rules)
{
    return READ_COPY(&shared->rules, rules);
}

void shared_write_rules(struct shared *shared, const struct shared_rules *rules)
{
    struct shared_rules before = {0}, next = *rules;
    uint64_t generation = shared_read_rules(shared, &before) + 1;
    keys_carry_over(&next.keys, &before.keys, generation);
    WRITE_COPY(&shared->rules, &next, sizeof next);
}

void shared_add_outcome(struct shared_service *service, const struct shared_outcome *outcome)
{
    service->outcomes[service->n_outcomes++ % SHARED_OUTCOMES] = *outcome;
    if (outcome->order)
        service->answered = outcome->order;
}

struct shared_outcome shared_latest_outcome(const struct shared_service *service)
{
    if (!service->n_outcomes)
        return (struct shared_outcome){0};
    return service->outcomes[(service->n_outcomes - 1) % SHARED_OUTCOMES];
}

bool shared_find_outcome(const struct shared_service *service, uint64_t order, struct shared_outcome *outcome)
{
    for (size_t i = 0; i < SHARED_OUTCOMES; i++) {
        if (!order || service->outcomes[i].order != order)
            continue;
        *outcome = service->outcomes[i];
        return true;
    }
    return false;
}

void shared_tell_service(struct shared *shared, const struct shared_service *service)
{
    WRITE_COPY(&shared->service, service, sizeof *service);
}

void shared_read_service(const struct shared *shared, struct shared_service *service)
{
    *service = (struct shared_service){0};
    READ_COPY(&shared->service, service);
}

uint64_t shared_next_order(struct shared *shared)
{
    return atomic_fetch_add(&shared->n_orders, 1) + 1;
}

/* Messages ------------------------------------------------------------------------------------------------ */

bool shared_send(struct shared *shared, unsigned from, unsigned to, const struct shared_message *message)
{
    struct ring *ring = &shared->rings[to][from];
    uint32_t n_sent = atomic_load_explicit(&ring->n_sent, memory_order_relaxed);
    if (to < SHARED_WORKERS_MAX && shared_state(shared, to) == SHARED_NOBODY)
        return false;
    if (n_sent - atomic_load_explicit(&ring->n_received, memory_order_acquire) >= MESSAGES)
        return false;
    uint64_t words[MESSAGE_WORDS];
    memcpy(words, message, sizeof words);
    for (size_t i = 0; i < MESSAGE_WORDS; i++)
        atomic_store_explicit(&ring->words[n_sent % MESSAGES][i], words[i], memory_order_relaxed);
    atomic_store_explicit(&ring->n_sent, n_sent + 1, memory_order_release);
    return true;
}

/* The next message of a ring, which stays there. */
static bool look_into(const struct ring *ring, struct shared_message *message)
{
    uint32_t n_received = atomic_load_explicit(&ring->n_received, memory_order_relaxed);
    if (n_received == atomic_load_explicit(&ring->n_sent, memory_order_acquire))
        return false;
    uint64_t words[MESSAGE_WORDS] = {0};
    for (size_t i = 0; i < MESSAGE_WORDS; i++)
        words[i] = atomic_load_explicit(&ring->words[n_received % MESSAGES][i], memory_order_relaxed);
    memcpy(message, words, sizeof words);
    return true;
}

/* That message is taken. */
static void move_on(struct ring *ring)
{
    uint32_t n_received = atomic_load_explicit(&ring->n_received, memory_order_relaxed);
    atomic_store_explicit(&ring->n_received, n_received + 1, memory_order_release);
}

static bool receive_from(struct ring *ring, struct shared_message *message)
{
    if (!look_into(ring, message))
        return false;
    move_on(ring);
    return true;
}

bool shared_receive(struct shared *shared, unsigned to, struct shared_message *message, unsigned *from)
{
    for (*from = 0; *from < n_records(shared); ++*from)
        if (receive_from(&shared->rings[to][*from], message))
            return true;
    *from = SHARED_SUPERVISOR;
    return receive_from(&shared->rings[to][*from], message);
}

bool shared_receive_order(struct shared *shared, struct shared_message *order)
{
    struct ring *first = NULL;
    struct shared_message found = {0};
    for (unsigned from = 0; from < n_records(shared); from++) {
        struct ring *ring = &shared->rings[SHARED_SUPERVISOR][from];
        if (!look_into(ring, &found) || (first && found.id >= order->id))
            continue;
        first = ring;
        *order = found;
    }
    if (first)
        move_on(first);
    return first;
}
