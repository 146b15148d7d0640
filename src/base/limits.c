/* limits.c: how many CPUs and how much memory this process may use. The kernel reports all of the machine even in a
 * container that may use two CPUs and a gigabyte of it. Owns nothing; any thread. */
#include "base/limits.h"

#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STAT_BYTES = 16 << 10 }; /* of a file with numbers and their names */

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
    double cpus;                       /* the smallest quota found; 0: none */
    struct limits_memory_files *files; /* to which those of the group are added */
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
static bool read_in_group(const char *root, const char *folder, const char *group, const char *name,
                          char *line, int size)
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
        if (!read_in_group(root, folder, group, "cpu.max", line, sizeof line) ||
            sscanf(line, "%lf %lf", &quota_us, &period_us) != 2)
            return;
    } else if (!read_in_group(root, folder, group, "cpu.cfs_quota_us", line, sizeof line) ||
               sscanf(line, "%lf", &quota_us) != 1 ||
               !read_in_group(root, folder, group, "cpu.cfs_period_us", line, sizeof line) ||
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

/* The file's text from its beginning, with a 0 behind it: as much of it as fits. False if there is none. */
static bool read_text(int file, char *text, size_t size)
{
    size_t len = 0;
    ssize_t n;
    while (file >= 0 && len + 1 < size && (n = pread(file, text + len, size - 1 - len, (off_t)len)) > 0)
        len += (size_t)n;
    text[len] = 0;
    return len > 0;
}

static bool read_number(int file, unsigned long long *number)
{
    char text[64];
    return read_text(file, text, sizeof text) && sscanf(text, "%llu", number) == 1;
}

/* The number after a name in lines "name number"; 0 if it is not there. */
static uint64_t number_named(const char *text, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
        if (strncmp(line, name, len) == 0 && line[len] == ' ')
            return strtoull(line + len, NULL, 10);
    return 0;
}

static int open_file(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
}

static int open_in_group(const char *root, const char *folder, const char *group, const char *name)
{
    char path[PATH_MAX];
    return join_path(path, sizeof path, root, folder, group, name) ? open_file(path) : -1;
}

static void close_file(int file)
{
    if (file >= 0)
        close(file);
}

static void close_group(const struct limits_memory_group *group)
{
    close_file(group->limit);
    close_file(group->used);
    close_file(group->stat);
}

/* Adds it if it says both what its limit is and what is in use. */
static void open_group(struct search *search, const char *root, const char *folder, const char *group,
                       bool v2)
{
    struct limits_memory_files *files = search->files;
    if (files->n_groups == LIMITS_GROUPS_MAX)
        return;
    const struct limits_memory_group opened = {
        .limit = open_in_group(root, folder, group, v2 ? "memory.max" : "memory.limit_in_bytes"),
        .used = open_in_group(root, folder, group, v2 ? "memory.current" : "memory.usage_in_bytes"),
        .stat = open_in_group(root, folder, group, "memory.stat"),
        .v2 = v2,
    };
    if (opened.limit < 0 || opened.used < 0)
        close_group(&opened);
    else
        files->groups[files->n_groups++] = opened;
}

void limits_memory_open_in(struct limits_memory_files *files, const char *cgroup_file,
                           const char *cgroup_root, const char *meminfo_file)
{
    struct search search = {.controller = "memory", .look = open_group, .files = files};
    *files = (struct limits_memory_files){.machine = meminfo_file ? open_file(meminfo_file) : -1};
    if (cgroup_file)
        search_cgroups(&search, cgroup_file, cgroup_root);
}

void limits_memory_open(struct limits_memory_files *files)
{
    limits_memory_open_in(files, "/proc/self/cgroup", "/sys/fs/cgroup", "/proc/meminfo");
}

void limits_memory_close(struct limits_memory_files *files)
{
    for (unsigned i = 0; i < files->n_groups; i++)
        close_group(&files->groups[i]);
    close_file(files->machine);
    *files = (struct limits_memory_files){.machine = -1};
}

/* Of one group. Files that nobody used lately count as idle, the others in the page cache give way, too, if they must. */
struct group_reading {
    struct limits_memory memory; /* zeros: it has no limit */
    uint64_t room_bytes;         /* that it has left; UINT64_MAX: no limit */
};

static struct group_reading read_group(const struct limits_memory_group *group)
{
    /* What version 1 says where there is no limit: the largest number of pages. */
    const uint64_t no_limit = (uint64_t)1 << 60;
    char text[STAT_BYTES];
    unsigned long long limit, used;
    if (!read_number(group->limit, &limit) || limit == 0 || limit >= no_limit ||
        !read_number(group->used, &used))
        return (struct group_reading){.room_bytes = UINT64_MAX};
    read_text(group->stat, text, sizeof text);
    uint64_t idle = number_named(text, group->v2 ? "inactive_file" : "total_inactive_file");
    uint64_t busy = number_named(text, group->v2 ? "active_file" : "total_active_file");
    uint64_t lasting = used > idle ? used - idle : 0, kept = lasting > busy ? lasting - busy : 0;
    return (struct group_reading){{lasting, limit}, limit > kept ? limit - kept : 0};
}

static struct limits_memory read_machine(int file)
{
    char text[STAT_BYTES];
    read_text(file, text, sizeof text);
    uint64_t total = number_named(text, "MemTotal:") * 1024;
    uint64_t available = number_named(text, "MemAvailable:") * 1024;
    return (struct limits_memory){total > available ? total - available : 0, total};
}

static bool is_fuller(struct limits_memory one, struct limits_memory other)
{
    return share(one) > share(other);
}

static bool is_smaller(struct limits_memory one, struct limits_memory other)
{
    return one.limit_bytes < other.limit_bytes;
}

/* The limit that goes before all others; both 0: there is none. */
static struct limits_memory read_first(const struct limits_memory_files *files,
                                       bool (*goes_before)(struct limits_memory one,
                                                           struct limits_memory other))
{
    struct limits_memory first = read_machine(files->machine);
    for (unsigned i = 0; i < files->n_groups; i++) {
        struct limits_memory memory = read_group(&files->groups[i]).memory;
        if (memory.limit_bytes && (!first.limit_bytes || goes_before(memory, first)))
            first = memory;
    }
    return first;
}

struct limits_memory limits_memory_read(const struct limits_memory_files *files)
{
    return read_first(files, is_fuller);
}

static struct limits_memory read_smallest(const char *cgroup_file, const char *cgroup_root,
                                          const char *meminfo_file)
{
    struct limits_memory_files files;
    limits_memory_open_in(&files, cgroup_file, cgroup_root, meminfo_file);
    struct limits_memory memory = read_first(&files, is_smaller);
    limits_memory_close(&files);
    return memory;
}

uint64_t limits_cgroup_room(const char *cgroup_file, const char *cgroup_root)
{
    struct limits_memory_files files;
    uint64_t room = UINT64_MAX;
    limits_memory_open_in(&files, cgroup_file, cgroup_root, NULL);
    for (unsigned i = 0; i < files.n_groups; i++) {
        uint64_t left = read_group(&files.groups[i]).room_bytes;
        room = left < room ? left : room;
    }
    limits_memory_close(&files);
    return room;
}

struct limits_memory limits_cgroup_memory(const char *cgroup_file, const char *cgroup_root)
{
    return read_smallest(cgroup_file, cgroup_root, NULL);
}

struct limits_memory limits_machine_memory(const char *meminfo_file)
{
    return read_smallest(NULL, NULL, meminfo_file);
}

struct limits_memory limits_memory(void)
{
    return read_smallest("/proc/self/cgroup", "/sys/fs/cgroup", "/proc/meminfo");
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
