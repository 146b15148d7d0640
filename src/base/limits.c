/* limits.c: how many CPUs this process may use. The kernel reports all processors even in a container that
 * may use two of them, and threads beyond the quota only make each other wait. Owns nothing; any thread. */
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

static double quota_of(double quota_us, double period_us)
{
    return quota_us > 0 && period_us > 0 ? quota_us / period_us : 0;
}

/* cpu.max: "50000 100000" or "max 100000". */
static double read_v2(const char *root, const char *folder, const char *group)
{
    char path[PATH_MAX], line[128];
    double quota, period;
    if (!join_path(path, sizeof path, root, folder, group, "cpu.max") ||
        !read_line(path, line, sizeof line) || sscanf(line, "%lf %lf", &quota, &period) != 2)
        return 0;
    return quota_of(quota, period);
}

/* cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us. */
static double read_v1(const char *root, const char *folder, const char *group)
{
    char path[PATH_MAX], line[128];
    double quota, period;
    if (!join_path(path, sizeof path, root, folder, group, "cpu.cfs_quota_us") ||
        !read_line(path, line, sizeof line) || sscanf(line, "%lf", &quota) != 1)
        return 0;
    if (!join_path(path, sizeof path, root, folder, group, "cpu.cfs_period_us") ||
        !read_line(path, line, sizeof line) || sscanf(line, "%lf", &period) != 1)
        return 0;
    return quota_of(quota, period);
}

static double smaller_limit(double a, double b)
{
    if (a == 0 || b == 0)
        return a + b;
    return fmin(a, b);
}

/* The smallest limit of a group and of all above it, the root included. Inside a container the group may be
 * named as the host sees it and its folder be missing here; then the levels that are here count. */
static double walk(const char *root, const char *folder, const char *group, bool v2)
{
    char path[PATH_MAX];
    if (strlen(group) >= sizeof path || strstr(group, "/.."))
        group = ""; /* a cgroup outside of our namespace has no path here */
    strcpy(path, group);
    double limit = 0;
    for (;;) {
        size_t len = strlen(path);
        while (len > 0 && path[len - 1] == '/')
            path[--len] = 0;
        limit = smaller_limit(limit, v2 ? read_v2(root, folder, path) : read_v1(root, folder, path));
        char *slash = strrchr(path, '/');
        if (!slash)
            return limit;
        *slash = 0;
    }
}

static bool names_cpu(const char *controllers)
{
    for (const char *at = controllers; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
        if (strncmp(at, "cpu", 3) == 0 && (at[3] == ',' || at[3] == 0))
            return true;
    return false;
}

/* A line is "number:controllers:path"; version 2 has no controllers. */
static double limit_of_line(char *line, const char *cgroup_root)
{
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return 0;
    *controllers++ = 0;
    *group++ = 0;
    if (*controllers == 0) /* alone, or beside version 1 under "unified" */
        return smaller_limit(walk(cgroup_root, "", group, true), walk(cgroup_root, "unified", group, true));
    if (!names_cpu(controllers))
        return 0;
    double limit = walk(cgroup_root, controllers, group, false);
    return strcmp(controllers, "cpu") == 0 ? limit
                                           : smaller_limit(limit, walk(cgroup_root, "cpu", group, false));
}

double limits_cgroup_cpus(const char *cgroup_file, const char *cgroup_root)
{
    FILE *file = fopen(cgroup_file, "re");
    if (!file)
        return 0;
    char line[PATH_MAX + 256];
    double limit = 0;
    while (fgets(line, sizeof line, file))
        limit = smaller_limit(limit, limit_of_line(line, cgroup_root));
    fclose(file);
    return limit;
}

unsigned limits_affinity_cpus(void)
{
    /* The kernel refuses a mask shorter than its own: try longer ones. */
    for (int n = 1024; n <= 1024 * 1024; n *= 4) {
        cpu_set_t *set = CPU_ALLOC(n);
        if (!set)
            return 0;
        bool done = sched_getaffinity(0, CPU_ALLOC_SIZE(n), set) == 0;
        int count = done ? CPU_COUNT_S(CPU_ALLOC_SIZE(n), set) : 0;
        CPU_FREE(set);
        if (done)
            return (unsigned)count;
    }
    return 0;
}

unsigned limits_cpus(void)
{
    double quota = limits_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    unsigned n = limits_affinity_cpus();
    if (n == 0)
        n = 1;
    if (quota > 0 && ceil(quota) < n)
        n = (unsigned)ceil(quota);
    return n;
}
