#include "engine/scheduler_state.h"
void forecast_learn(struct scheduler *scheduler, const struct scheduler_entry *entry){(void)scheduler;(void)entry;}
double forecast_correction(const struct scheduler *scheduler, uint32_t fc){(void)scheduler;(void)fc;return 1;}
uint32_t forecast_class(const struct scheduler *scheduler, const struct scheduler_entry *entry){(void)scheduler;(void)entry;return 0;}
void forecast_refused(struct scheduler *scheduler, const struct scheduler_entry *entry){(void)scheduler;(void)entry;}
void forecast_waited(struct scheduler *scheduler, const struct scheduler_entry *entry, double w){(void)scheduler;(void)entry;(void)w;}
void forecast_follow_up(struct scheduler *scheduler, double now_ms){(void)scheduler;(void)now_ms;}
void scheduler_predict(struct scheduler *scheduler, const struct scheduler_entry *entry, double now_ms,
                       struct scheduler_forecast *forecast){(void)scheduler;(void)entry;(void)now_ms;forecast->wait_ms=0;forecast->first_token_ms=0;}
