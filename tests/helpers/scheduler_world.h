/* scheduler_world.h: a scheduler, requests and a machine that is made up, in virtual time. */
#ifndef RUNNEL_TESTS_SCHEDULER_WORLD_H
#define RUNNEL_TESTS_SCHEDULER_WORLD_H

#include "engine/scheduler.h"

enum { REQUESTS_MAX = 6000 };

struct request {
    struct scheduler_entry entry; /* first: an entry is its request */
    uint32_t n_answer;
    int client; /* of a closed loop; -1: none */
    enum scheduler_answer answer;
    struct scheduler_forecast forecast;
    double first_ms, last_ms, done_ms, gap_ms; /* gap: the longest between two tokens */
};

struct machine {
    double floor_ms, row_ms, pair_us, noise;
};

extern const struct machine usual_machine; /* what a new world has */

struct world {
    struct scheduler *scheduler;
    struct machine machine;
    struct request *requests; /* in the order of their arrival */
    uint32_t n_requests, n_arrived;
    double now_ms, until_ms;                /* a closed loop starts no request after until_ms */
    uint32_t n_prompt, n_answer, n_clients; /* of its requests */
    uint64_t n_tokens;
    double busy_ms;
};

void world_open(struct world *world, const struct scheduler_options *options);

void world_close(struct world *world);

/* What scheduler_check finds wrong fails the test. */
void world_check(const struct world *world);

/* Requests are added in ascending arrival, or, if one comes before others that have not arrived, sorted in. */
struct request *world_add(struct world *world, double arrival_ms, uint64_t key, uint32_t n_prompt,
                          uint32_t n_answer);

/* Hands over the requests whose time has come. */
void world_arrive(struct world *world);

/* A token of an answer; the last one ends the request, and its client sends the next. */
void world_draw(struct world *world, struct request *request);

/* One step, or the time until something comes. False: nothing will. */
bool world_step(struct world *world);

/* Until nothing comes any more. */
void world_run(struct world *world);

/* A closed loop: n clients, each of which sends a request when its last one is answered. */
void world_add_clients(struct world *world, uint32_t n, uint64_t key, uint32_t n_prompt, uint32_t n_answer);

/* Poisson arrivals of equal requests from a time on. */
void world_add_arrivals(struct world *world, double from_ms, double until_ms, double per_second,
                        uint32_t n_prompt, uint32_t n_answer);

/* All requests were answered. */
void world_check_done(const struct world *world);

#endif
