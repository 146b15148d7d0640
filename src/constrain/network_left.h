/* network_left.h: rules that begin with themselves ("expr ::= expr "+" term | term"), changed into loops. See network.h. */
#ifndef RUNNEL_CONSTRAIN_NETWORK_LEFT_H
#define RUNNEL_CONSTRAIN_NETWORK_LEFT_H

#include "constrain/network.h"

/* The same texts, without left recursion. Refused where a rule begins with what may be empty and then itself. */
int network_unroll_left(struct network *network, uint64_t max_work, runnel_error *error);

#endif
