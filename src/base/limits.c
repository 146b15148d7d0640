/* limits.c: how many CPUs and how much memory this process may use. The kernel reports all of the machine even in a
 * container that may use two CPUs and a gigabyte of it. Owns nothing; any thread. */
#include "base/limits.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Puts "root/a/b/name" into path. False if it does not fit. */
static bool join_path(char *path, size_t size, const char *root, const char *folder, const char *group,
                      const char *name)
{
    int len = snprintf(path, size, "%s%s%s%s/%s", root, *folder ? "/" : "", folder, group, name);
    return len > 0 && (size_t)len < size;
}

static bool read_line(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool done = fgets(line, size, file) != NULL;
    fclose(file);
    return done;
}

/* What is looked for in the folders of a process's cgroups. */
struct search {
    const char *controller; /* of version 1: "cpu" */
    /* Looks at one group, and keeps what it finds in the search. */
    void (*look)(struct search *search, const char *root, const char *folder, const char *group, bool v2);
    double cpus;                 /* the smallest quota found; 0: none */
    struct limits_memory memory; /* the limit of which most is used; zeros: none */
    uint64_t room_bytes;         /* the least that a limit leaves */
};

/* Looks at a group and at all above it, the root included. Inside a container the group may be
 * named as the host sees it and its folder be missing here; then the levels that are here count. */
static void walk(struct search *search, const char *root, const char *folder, const char *group, bool v2)
{
    char path[PATH_MAX];
    if (strlen(group) >= sizeof path || strstr(group, "/.."))
        group = ""; /* a cgroup outside of our namespace has no path here */
    strcpy(path, group);
    for (;;) {
        size_t len = strlen(path);
        while (len > 0 && path[len - 1] == '/')
            path[--len] = 0;
        search->look(search, root, folder, path, v2);
        char *slash = strrchr(path, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

/* Is it one of "cpu,cpuacct"? */
static bool is_named(const char *controllers, const char *controller)
{
    size_t len = strlen(controller);
    for (const char *at = controllers; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
        if (strncmp(at, controller, len) == 0 && (at[len] == ',' || at[len] == 0))
            return true;
    return false;
}

/* A line is "number:controllers:path"; version 2 has no controllers. */
static void search_line(struct search *search, char *line, const char *cgroup_root)
{
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return;
    *controllers++ = 0;
    *group++ = 0;
    if (*controllers == 0) { /* alone, or beside version 1 under "unified" */
        walk(search, cgroup_root, "", group, true);
        walk(search, cgroup_root, "unified", group, true);
    } else if (is_named(controllers, search->controller)) {
        walk(search, cgroup_root, controllers, group, false);
        if (strcmp(controllers, search->controller) != 0)
            walk(search, cgroup_root, search->controller, group, false);
    }
}

static void search_cgroups(struct search *search, const char *cgroup_file, const char *cgroup_root)
{
    FILE *file = fopen(cgroup_file, "re");
    if (!file)
        return;
    char line[PATH_MAX + 256];
    while (fgets(line, sizeof line, file))
        search_line(search, line, cgroup_root);
    fclose(file);
}

/* A file's first line. */
static bool read_group(const char *root, const char *folder, const char *group, const char *name, char *line,
                       int size)
{
    char path[PATH_MAX];
    return join_path(path, sizeof path, root, folder, group, name) && read_line(path, line, size);
}

/* CPUs ---------------------------------------------------------------------------------------------------- */

/* Version 2: cpu.max, "50000 100000" or "max 100000". Version 1: cpu.cfs_quota_us (-1: none) and
 * cpu.cfs_period_us. */
static void look_at_cpus(struct search *search, const char *root, const char *folder, const char *group,
                         bool v2)
{
    char line[128];
    double quota_us, period_us;
    if (v2) {
        if (!read_group(root, folder, group, "cpu.max", line, sizeof line) ||
            sscanf(line, "%lf %lf", &quota_us, &period_us) != 2)
            return;
    } else if (!read_group(root, folder, group, "cpu.cfs_quota_us", line, sizeof line) ||
               sscanf(line, "%lf", &quota_us) != 1 ||
               !read_group(root, folder, group, "cpu.cfs_period_us", line, sizeof line) ||
               sscanf(line, "%lf", &period_us) != 1) {
        return;
    }
    if (!(quota_us > 0 && period_us > 0))
        return;
    double cpus = quota_us / period_us;
    if (search->cpus == 0 || cpus < search->cpus)
        search->cpus = cpus;
}

double limits_cgroup_cpus(const char *cgroup_file, const char *cgroup_root)
{
    struct search search = {.controller = "cpu", .look = look_at_cpus};
    search_cgroups(&search, cgroup_file, cgroup_root);
    return search.cpus;
}

/* The calling thread's mask, for *n_cpus CPUs at most, to be freed with CPU_FREE; NULL if it cannot be had. */
static cpu_set_t *read_affinity(int *n_cpus)
{
    /* The kernel refuses a mask shorter than its own: try longer ones. */
    for (int n = 1024; n <= 1024 * 1024; n *= 4) {
        cpu_set_t *set = CPU_ALLOC(n);
        if (!set)
            return NULL;
        *n_cpus = n;
        if (sched_getaffinity(0, CPU_ALLOC_SIZE(n), set) == 0)
            return set;
        CPU_FREE(set);
    }
    return NULL;
}

unsigned limits_affinity_cpus(void)
{
    int n_cpus;
    cpu_set_t *set = read_affinity(&n_cpus);
    int count = set ? CPU_COUNT_S(CPU_ALLOC_SIZE(n_cpus), set) : 0;
    CPU_FREE(set);
    return (unsigned)count;
}

/* The first CPU of the core that this one belongs to: itself where nothing else is said. The file is a list, "0,64" or "2-3". */
static int first_sibling(const char *cpu_folder, int cpu)
{
    char path[PATH_MAX], line[128];
    int first, len = snprintf(path, sizeof path, "%s/cpu%d/topology/thread_siblings_list", cpu_folder, cpu);
    if (len < 0 || (size_t)len >= sizeof path || !read_line(path, line, sizeof line) ||
        sscanf(line, "%d", &first) != 1 || first < 0 || first > cpu)
        return cpu;
    return first;
}

unsigned limits_cores_of(const char *cpu_folder)
{
    int n_cpus;
    cpu_set_t *set = read_affinity(&n_cpus);
    if (!set)
        return 1;
    size_t size = CPU_ALLOC_SIZE(n_cpus);
    cpu_set_t *cores = CPU_ALLOC(n_cpus); /* each as its first CPU */
    unsigned n_cores = (unsigned)CPU_COUNT_S(size, set);
    if (cores) {
        CPU_ZERO_S(size, cores);
        for (int cpu = 0; cpu < n_cpus; cpu++)
            if (CPU_ISSET_S((size_t)cpu, size, set))
                CPU_SET_S((size_t)first_sibling(cpu_folder, cpu), size, cores);
        n_cores = (unsigned)CPU_COUNT_S(size, cores);
    }
    CPU_FREE(cores);
    CPU_FREE(set);
    return n_cores;
}

unsigned limits_cores(void)
{
    return limits_cores_of("/sys/devices/system/cpu");
}

double limits_quota_cpus(void)
{
    return limits_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
}

unsigned limits_cpus(void)
{
    double quota = limits_quota_cpus();
    unsigned n = limits_affinity_cpus();
    if (n == 0)
        n = 1;
    if (quota > 0 && ceil(quota) < n)
        n = (unsigned)ceil(quota);
    return n;
}

/* Memory -------------------------------------------------------------------------------------------------- */

static double share(struct limits_memory memory)
{
    return memory.limit_bytes ? (double)memory.used_bytes / (double)memory.limit_bytes : 0;
}

/* The number after a name in a file of lines "name number"; 0 if it is not there. */
static uint64_t read_named(const char *path, const char *name)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    char line[128];
    uint64_t number = 0;
    size_t len = strlen(name);
    while (!number && fgets(line, sizeof line, file))
        if (strncmp(line, name, len) == 0 && line[len] == ' ')
            number = strtoull(line + len, NULL, 10);
    fclose(file);
    return number;
}

static void look_at_memory(struct search *search, const char *root, const char *folder, const char *group,
                           bool v2)
{
    /* What version 1 says where there is no limit: the largest number of pages. */
    const uint64_t no_limit = (uint64_t)1 << 60;
    char line[128], path[PATH_MAX];
    unsigned long long limit, used;
    if (!read_group(root, folder, group, v2 ? "memory.max" : "memory.limit_in_bytes", line, sizeof line) ||
        sscanf(line, "%llu", &limit) != 1 || limit == 0 || limit >= no_limit ||
        !read_group(root, folder, group, v2 ? "memory.current" : "memory.usage_in_bytes", line,
                    sizeof line) ||
        sscanf(line, "%llu", &used) != 1)
        return;
    uint64_t idle = 0, busy = 0; /* files */
    if (join_path(path, sizeof path, root, folder, group, "memory.stat")) {
        idle = read_named(path, v2 ? "inactive_file" : "total_inactive_file");
        busy = read_named(path, v2 ? "active_file" : "total_active_file");
    }
    struct limits_memory memory = {used > idle ? used - idle : 0, limit};
    if (!search->memory.limit_bytes || share(memory) > share(search->memory))
        search->memory = memory;
    uint64_t kept = memory.used_bytes > busy ? memory.used_bytes - busy : 0,
             room = limit > kept ? limit - kept : 0;
    if (room < search->room_bytes)
        search->room_bytes = room;
}

uint64_t limits_cgroup_room(const char *cgroup_file, const char *cgroup_root)
{
    struct search search = {.controller = "memory", .look = look_at_memory, .room_bytes = UINT64_MAX};
    search_cgroups(&search, cgroup_file, cgroup_root);
    return search.room_bytes;
}

struct limits_memory limits_cgroup_memory(const char *cgroup_file, const char *cgroup_root)
{
    struct search search = {.controller = "memory", .look = look_at_memory};
    search_cgroups(&search, cgroup_file, cgroup_root);
    return search.memory;
}

struct limits_memory limits_machine_memory(const char *meminfo_file)
{
    uint64_t total = read_named(meminfo_file, "MemTotal:") * 1024;
    uint64_t available = read_named(meminfo_file, "MemAvailable:") * 1024;
    return (struct limits_memory){total > available ? total - available : 0, total};
}

struct limits_memory limits_memory(void)
{
    struct limits_memory group = limits_cgroup_memory("/proc/self/cgroup", "/sys/fs/cgroup");
    struct limits_memory machine = limits_machine_memory("/proc/meminfo");
    return share(group) > share(machine) ? group : machine;
}

bool limits_memory_room(uint64_t *n_bytes)
{
    uint64_t room = limits_cgroup_room("/proc/self/cgroup", "/sys/fs/cgroup");
    struct limits_memory machine = limits_machine_memory("/proc/meminfo");
    if (machine.limit_bytes && machine.limit_bytes - machine.used_bytes < room)
        room = machine.limit_bytes - machine.used_bytes;
    *n_bytes = room;
    return room < UINT64_MAX;
}
