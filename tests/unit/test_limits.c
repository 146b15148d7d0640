/* test_limits.c: CPU quotas and memory limits from made-up cgroup trees, and the affinity mask from the real system call. */
#include "base/limits.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64]; /* a new folder for each test */

static int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/runnel-limits-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

/* Writes a file below root, and the folders above it. */
static void put(const char *name, const char *content)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = strchr(path + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(content, file);
    fclose(file);
}

static double quota(void)
{
    char cgroup_file[128], cgroup_root[128];
    snprintf(cgroup_file, sizeof cgroup_file, "%s/cgroup", root);
    snprintf(cgroup_root, sizeof cgroup_root, "%s/sys", root);
    return limits_cgroup_cpus(cgroup_file, cgroup_root);
}

static void test_no_limit(void **state)
{
    (void)state;
    assert_true(quota() == 0); /* no files at all */
    put("cgroup", "0::/a/b\n");
    assert_true(quota() == 0);
    put("sys/a/b/cpu.max", "max 100000\n");
    put("sys/a/cpu.max", "nonsense\n");
    put("sys/cpu.max", "");
    assert_true(quota() == 0);
    put("cgroup", "rubbish\n\n:\n0:\n7:cpu\n");
    assert_true(quota() == 0);
}

static void test_version_2_smallest_of_all_levels(void **state)
{
    (void)state;
    put("cgroup", "0::/a/b/c\n");
    put("sys/a/b/c/cpu.max", "400000 100000\n");
    assert_true(quota() == 4);
    put("sys/a/b/cpu.max", "max 100000\n");
    put("sys/a/cpu.max", "75000 50000\n");
    assert_true(quota() == 1.5);
    put("sys/cpu.max", "50000 100000\n");
    assert_true(quota() == 0.5);
    put("cgroup", "0::/\n");
    assert_true(quota() == 0.5);
    put("cgroup",
        "0::/gone/gone\n"); /* the host's name of a container's group: the levels that exist count */
    assert_true(quota() == 0.5);
    put("cgroup", "0::/../outside\n");
    assert_true(quota() == 0.5);
}

static void test_version_1(void **state)
{
    (void)state;
    put("cgroup", "5:cpuset:/x\n4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n");
    put("sys/cpuset/x/cpu.cfs_quota_us", "1000\n"); /* not the cpu controller */
    put("sys/cpuset/x/cpu.cfs_period_us", "100000\n");
    put("sys/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "-1\n");
    put("sys/cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n");
    assert_true(quota() == 0);
    put("sys/cpu,cpuacct/docker/cpu.cfs_quota_us", "250000\n");
    assert_true(quota() == 0); /* without a period */
    put("sys/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n");
    assert_true(quota() == 2.5);
    put("sys/cpu/docker/1/cpu.cfs_quota_us", "200000\n"); /* mounted under its short name */
    put("sys/cpu/docker/1/cpu.cfs_period_us", "100000\n");
    assert_true(quota() == 2);
    put("cgroup", "4:cpuacct,cpu:/\n");
    put("sys/cpu/cpu.cfs_quota_us", "300000\n");
    put("sys/cpu/cpu.cfs_period_us", "100000\n");
    assert_true(quota() == 3);
    put("cgroup", "4:cpuset,cpuacct:/\n");
    assert_true(quota() == 0);
}

static void test_both_versions(void **state)
{
    (void)state;
    put("cgroup", "1:cpu:/\n0::/user\n");
    put("sys/cpu/cpu.cfs_quota_us", "300000\n");
    put("sys/cpu/cpu.cfs_period_us", "100000\n");
    put("sys/unified/user/cpu.max", "200000 100000\n");
    assert_true(quota() == 2);
    put("sys/unified/user/cpu.max", "900000 100000\n");
    assert_true(quota() == 3);
}

static struct limits_memory memory(void)
{
    char cgroup_file[128], cgroup_root[128];
    snprintf(cgroup_file, sizeof cgroup_file, "%s/cgroup", root);
    snprintf(cgroup_root, sizeof cgroup_root, "%s/sys", root);
    return limits_cgroup_memory(cgroup_file, cgroup_root);
}

/* The level with the smallest limit counts; files that nobody used lately are not in use. */
static void test_memory_v2(void **state)
{
    (void)state;
    put("cgroup", "0::/a/b\n");
    assert_int_equal(memory().limit_bytes, 0);
    put("sys/a/b/memory.max", "max\n");
    put("sys/a/b/memory.current", "700\n");
    assert_int_equal(memory().limit_bytes, 0);
    put("sys/a/memory.max", "1000\n");
    assert_int_equal(memory().limit_bytes, 0); /* how much of it is used is not told */
    put("sys/a/memory.current", "800\n");
    put("sys/a/memory.stat", "anon 500\ninactive_file 300\nactive_file 0\n");
    assert_int_equal(memory().limit_bytes, 1000);
    assert_int_equal(memory().used_bytes, 500);
    put("sys/a/b/memory.max", "750\n");
    assert_int_equal(memory().limit_bytes, 750);
    assert_int_equal(memory().used_bytes, 700);
    put("sys/a/memory.max", "600\n");
    put("sys/a/memory.stat", "inactive_file 0\n");
    assert_int_equal(memory().limit_bytes, 600);
    assert_int_equal(memory().used_bytes, 800);
}

static uint64_t room(void)
{
    char cgroup_file[128], cgroup_root[128];
    snprintf(cgroup_file, sizeof cgroup_file, "%s/cgroup", root);
    snprintf(cgroup_root, sizeof cgroup_root, "%s/sys", root);
    return limits_cgroup_room(cgroup_file, cgroup_root);
}

/* The level with the least left counts, even if more of another one is used; files give way. */
static void test_room_of_memory(void **state)
{
    (void)state;
    put("cgroup", "0::/a/b\n");
    assert_true(room() == UINT64_MAX);
    put("sys/a/b/memory.max", "max\n");
    put("sys/a/b/memory.current", "700\n");
    assert_true(room() == UINT64_MAX);
    put("sys/a/memory.max", "10000\n");
    put("sys/a/memory.current", "8000\n");
    assert_int_equal(room(), 2000);
    put("sys/a/memory.stat", "anon 5000\ninactive_file 1000\nactive_file 500\n");
    assert_int_equal(room(), 3500);
    put("sys/a/b/memory.max", "1000\n");
    put("sys/a/b/memory.current", "600\n");
    assert_int_equal(memory().limit_bytes, 1000); /* though of the other one a larger part is in use */
    assert_int_equal(room(), 400);
    put("sys/a/b/memory.current", "1100\n");
    assert_int_equal(room(), 0);
    put("cgroup", "3:memory:/c\n");
    put("sys/memory/c/memory.limit_in_bytes", "5000\n");
    put("sys/memory/c/memory.usage_in_bytes", "4000\n");
    put("sys/memory/c/memory.stat", "inactive_file 7\ntotal_inactive_file 100\ntotal_active_file 200\n");
    assert_int_equal(room(), 1300);
}

static void test_room_of_this_process(void **state)
{
    (void)state;
    uint64_t n_bytes = 0;
    assert_true(limits_memory_room(&n_bytes)); /* Linux tells */
    assert_in_range(n_bytes, 1 << 20, (uint64_t)1 << 50);
}

static void test_memory_v1(void **state)
{
    (void)state;
    put("cgroup", "2:cpu:/a\n3:memory:/a\n");
    put("sys/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    put("sys/memory/memory.usage_in_bytes", "5\n");
    assert_int_equal(memory().limit_bytes, 0);
    put("sys/memory/a/memory.limit_in_bytes", "4000\n");
    put("sys/memory/a/memory.usage_in_bytes", "3000\n");
    put("sys/memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n");
    assert_int_equal(memory().limit_bytes, 4000);
    assert_int_equal(memory().used_bytes, 2000);
}

static void test_memory_machine(void **state)
{
    (void)state;
    char path[128];
    put("meminfo", "MemTotal:       1000 kB\nMemFree:        100 kB\nMemAvailable:   400 kB\n");
    snprintf(path, sizeof path, "%s/meminfo", root);
    assert_int_equal(limits_machine_memory(path).limit_bytes, 1000 * 1024);
    assert_int_equal(limits_machine_memory(path).used_bytes, 600 * 1024);
    assert_int_equal(limits_machine_memory("/nowhere").limit_bytes, 0);
    assert_true(limits_memory().limit_bytes > 1 << 20);
    assert_true(limits_memory().used_bytes > 0);
}

/* What was opened once tells again and again how things are now, and opens nothing for that. */
static void test_memory_again(void **state)
{
    (void)state;
    char cgroup_file[128], cgroup_root[128], meminfo[128];
    struct limits_memory_files files;
    put("cgroup", "0::/a\n");
    put("sys/a/memory.max", "1000\n");
    put("sys/a/memory.current", "500\n");
    put("sys/a/memory.stat", "anon 500\ninactive_file 100\n");
    put("meminfo", "MemTotal:       1000 kB\nMemAvailable:   900 kB\n");
    snprintf(cgroup_file, sizeof cgroup_file, "%s/cgroup", root);
    snprintf(cgroup_root, sizeof cgroup_root, "%s/sys", root);
    snprintf(meminfo, sizeof meminfo, "%s/meminfo", root);
    limits_memory_open_in(&files, cgroup_file, cgroup_root, meminfo);
    assert_int_equal(files.n_groups, 1);
    assert_int_equal(limits_memory_read(&files).limit_bytes, 1000);
    assert_int_equal(limits_memory_read(&files).used_bytes, 400);
    put("sys/a/memory.current", "800\n");
    put("sys/a/memory.stat", "anon 500\ninactive_file 50\n");
    put("sys/a/memory.max", "2000\n");
    assert_int_equal(limits_memory_read(&files).limit_bytes, 2000);
    assert_int_equal(limits_memory_read(&files).used_bytes, 750);
    put("meminfo", "MemTotal:       1000 kB\nMemAvailable:   10 kB\n"); /* the machine is fuller */
    assert_int_equal(limits_memory_read(&files).used_bytes, 990 * 1024);
    unlink(cgroup_file);
    assert_int_equal(limits_memory_read(&files).used_bytes, 990 * 1024);
    int before = dup(0);
    close(before);
    limits_memory_close(&files);
    int after = dup(0);
    close(after);
    assert_true(after < before);
    assert_int_equal(limits_memory_read(&files).limit_bytes, 0);
}

/* CPUs that say of each other that they are one core count once. */
static void test_cores(void **state)
{
    (void)state;
    cpu_set_t before, two;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    int cpus[2], n = 0;
    CPU_ZERO(&two);
    for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++)
        if (CPU_ISSET(cpu, &before)) {
            CPU_SET(cpu, &two);
            cpus[n++] = cpu;
        }
    if (n < 2)
        skip();
    assert_int_equal(sched_setaffinity(0, sizeof two, &two), 0);
    char name[64], list[64];
    assert_int_equal(limits_cores_of(root), 2); /* nothing is known */
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "cpu%d/topology/thread_siblings_list", cpus[i]);
        snprintf(list, sizeof list, "%d,%d\n", cpus[0], cpus[1]);
        put(name, list);
    }
    assert_int_equal(limits_cores_of(root), 1);
    put(name, "rubbish\n");
    assert_int_equal(limits_cores_of(root), 2);
    put(name, "999999999\n");
    assert_int_equal(limits_cores_of(root), 2);
    snprintf(list, sizeof list, "%d-%d\n", cpus[1], cpus[1] + 1);
    put(name, list);
    assert_int_equal(limits_cores_of(root), 2);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_in_range(limits_cores(), 1, CPU_COUNT(&before));
}

static void test_affinity(void **state)
{
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(limits_affinity_cpus(), CPU_COUNT(&before));
    assert_in_range(limits_cpus(), 1, CPU_COUNT(&before));
    int cpu = 0;
    while (!CPU_ISSET(cpu, &before))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(limits_affinity_cpus(), 1);
    assert_int_equal(limits_cpus(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_limit, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_version_2_smallest_of_all_levels, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_version_1, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_both_versions, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_memory_v2, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_room_of_memory, make_root, remove_root),
        cmocka_unit_test(test_room_of_this_process),
        cmocka_unit_test_setup_teardown(test_memory_v1, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_memory_machine, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_memory_again, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_cores, make_root, remove_root),
        cmocka_unit_test(test_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
